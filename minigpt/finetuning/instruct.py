"""From a run and instructions with answers to a run that follows them, and how well it does."""

import copy
import dataclasses
import functools
import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.device import pick_device, threads_for
from minigpt.errors import ConfigError, DataError, FileError
from minigpt.finetuning.accuracy import Accuracy, accuracy, majority
from minigpt.finetuning.finetune import RATES, STEPS, Method, adapt, own_losses, taught
from minigpt.finetuning.instructions import SPECIAL, Example, Instructions, Template, read_examples
from minigpt.finetuning.lora import Shape, chosen_layers, trained_share
from minigpt.finetuning.tasks import examples_of, require_tasks, words_of
from minigpt.finetuning.vocabulary import grown, with_tokens
from minigpt.model.loss import bits, mean_loss
from minigpt.run import Evaluation, Run, lengths_of
from minigpt.text.corpus import Corpus, sha256
from minigpt.text.passages import share
from minigpt.training.display import Display
from minigpt.training.train import Start

ASKED = 500  # held-out examples of each task, by which the accuracy is measured
EXAMPLES = 10_000  # of each task, to learn from
VALIDATING = 0.1  # share of a file's examples
OWN = "the examples"  # what those of a file are called among tasks


@dataclass(frozen=True)
class Instructed:
    """What came of it.

    Attributes:
        accuracies: by task: before, where the base knew instructions, after, and of the most frequent answer always.
        own_before: the base's exact loss on its own text, as plain text; None where that cannot be had.
        own_after: the run's on the same: what it has forgotten.
        truncated: how many examples were longer than the model sees.
    """

    run: Run
    trained: int
    accuracies: dict[str, tuple[Accuracy | None, Accuracy, Accuracy]]
    own_before: float | None
    own_after: float | None
    truncated: int
    adapter: Path | None


@dataclass(frozen=True)
class Material:
    """Examples by task, to learn from and held out, and where they are from."""

    train: dict[str, list[Example]]
    test: dict[str, list[Example]]
    source: str

    @property
    def all(self) -> tuple[list[Example], list[Example]]:
        """Those of all tasks."""
        return [*itertools.chain(*self.train.values())], [*itertools.chain(*self.test.values())]

    @property
    def text(self) -> str:
        """All of them as JSON."""
        turns = [[dataclasses.astuple(turn) for turn in example.turns] for part in self.all for example in part]
        return json.dumps(turns)


def instruct(
    base: Run,
    data: str | Path | None = None,
    tasks: Sequence[str] = (),
    method: Method = "full",
    shape: Shape | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Instructed:
    """Teach a copy of a run's model instructions, from a file of JSON lines or of the built-in tasks.

    Its vocabulary grows by the marks between turns, and of characters by those that the examples need; what it knew
    stays. Raises as `finetune` does, and DataError for examples that cannot be learned.
    """
    usual = {
        "max_iters": STEPS,
        "learning_rate": RATES[method],
        "quantization": "none",
        "order": "epochs",
        "snapshots": 0,
    }
    config = base.config.override(**(usual | settings))
    if base.config.model.quantization != "none" or base.config.model.architecture == "bigram":
        raise ConfigError("instructions need a transformer whose weights are in full precision: take another run")
    material = of_file(data, config.training.seed) if data is not None else of_tasks(base, tasks, config.training.seed)
    train, test = material.all
    texts = [turn.text for example in [*train, *test] for turn in example.turns]
    tokenizer, old = grown(base.tokenizer, SPECIAL, texts)
    if method != "full":
        if None in old:
            raise ConfigError("adapters cannot teach new tokens: let all weights learn instructions first")
        chosen_layers(base.model, targets)
    template = Template(tokenizer)
    config = config.override(vocab_size=tokenizer.vocab_size)
    dataset = Instructions(train, test, template, config, own_text(base, old))
    before = (
        {task: accuracy(base.model, template, some) for task, some in material.test.items()} if None not in old else {}
    )
    corpus = Corpus(material.text, material.source, None, sha256(material.text.encode()))
    device = pick_device(config.training.device)
    with (
        Display(config.training) as display,
        threads_for(config.training.batch_size * config.model.block_size * config.model.n_embd) as threads,
    ):
        display.say(f"text   {material.source}: {len(train):,} examples to learn, {len(test):,} held out")
        if dataset.truncated:
            display.say(f"       {dataset.truncated:,} are longer than block_size, and begin later than they did")
        torch.manual_seed(config.training.seed)
        model = with_tokens(copy.deepcopy(base.model), old, config.training.seed).to(device)
        adapt(model, method, shape or Shape(), targets)
        trained, _ = trained_share(model)
        start = Start(corpus, tokenizer, config, dataset, model, threads)
        wanted = Path(f"runs/{base.path.name or 'run'}-instructed" if out is None else out)
        measure = functools.partial(measured, dataset=dataset)
        run, adapter = taught(base, start, method, wanted, display, measure, documents=None, instructions=True)
        found = {
            task: (before.get(task), accuracy(model, template, some), majority(material.train[task], some))
            for task, some in material.test.items()
        }
        own_before, own_after = own_losses(base, run)
        return Instructed(run, trained, found, own_before, own_after, dataset.truncated, adapter)


def own_text(base: Run, old: Sequence[int | None]) -> Callable[[], tuple[Tensor, Tensor]] | None:
    """Batches of the base's own text, as ids of the grown vocabulary; None where the text cannot be had."""
    try:
        dataset = base.dataset()
    except (DataError, FileError):
        return None
    new = torch.zeros(base.tokenizer.vocab_size, dtype=torch.int64)
    for n, i in enumerate(old):
        if i is not None:
            new[i] = n

    def batch() -> tuple[Tensor, Tensor]:
        x, y = dataset.get_batch("train")
        return new[x], new[y]

    return batch


def measured(run: Run, dataset: Instructions) -> Evaluation:
    """The mean loss of all tokens of the held-out answers."""
    x, y = dataset.sample("val", len(dataset.parts["val"]))
    loss = mean_loss(run.model, x, y)
    answered = y[y >= 0]
    size, characters = lengths_of(run.tokenizer)[answered].sum(0).tolist()
    total, count = bits(loss) * len(answered), len(answered)
    per_byte, per_character = total / max(1, size), total / max(1, characters)
    return Evaluation(
        loss, per_byte, per_character, "held-out answers", characters, run.record.data_source, count, count
    )


def of_file(path: str | Path, seed: int) -> Material:
    """The examples of a file, a tenth of them held out: which, the SHA-256 of each decides."""
    examples = read_examples(path)
    kept = {example: share_of(example) < VALIDATING for example in examples}
    train = [example for example in examples if not kept[example]]
    test = [example for example in dict.fromkeys(examples) if kept[example]]
    if not train or not test:
        raise DataError(f"{str(path)!r} has {len(examples)} examples: too few to learn from some and test with others")
    random.Random(seed).shuffle(test)
    return Material({OWN: train}, {OWN: test[:ASKED]}, f"the examples in {path}")


def share_of(example: Example) -> float:
    """A number from 0 to 1 that the example's prompt decides, so that no question is in both parts."""
    return share(json.dumps([dataclasses.astuple(turn) for turn in example.prompt]))


def of_tasks(base: Run, tasks: Sequence[str], seed: int) -> Material:
    """Examples of the built-in tasks on words of the base's text, and made-up ones."""
    require_tasks(tasks)
    try:
        corpus = base.corpus()
        text = corpus.text if isinstance(corpus, Corpus) else ""
    except (DataError, FileError):
        text = ""
    longest = min(12, (base.config.model.block_size - len("count letters: ") - 3) // 2)  # in its prompt and its answer
    known, kept = words_of(text, longest, seed)
    train = examples_of(tasks, known, EXAMPLES, seed)
    return Material(train, examples_of(tasks, kept, ASKED, seed + 1), f"tasks on words: {', '.join(tasks)}")
