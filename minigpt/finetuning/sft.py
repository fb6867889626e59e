"""From a run and instructions with answers to a run that follows them, and how well it does."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.acceleration import accelerate
from minigpt.errors import ConfigError
from minigpt.finetuning.accuracy import Accuracy, accuracies, majority
from minigpt.finetuning.accuracy_log import AccuracyLog
from minigpt.finetuning.example_split import material_of
from minigpt.finetuning.finetune import Method, adapt, begun_from, create_run, run_finetuning
from minigpt.finetuning.lora import (
    LoRAConfig,
    count_trained_parameters,
)
from minigpt.finetuning.replay import OwnText
from minigpt.finetuning.sft_dataset import Instructions
from minigpt.finetuning.target_layers import OUTSIDE_BLOCKS, select_layers
from minigpt.finetuning.vocabulary_resize import extend_tokenizer, resize_embeddings, train_new_rows
from minigpt.model import TrainedModel
from minigpt.model.loss import compute_mean_loss, nats_to_bits
from minigpt.runs.run import Evaluation, Run, lengths_of
from minigpt.system.device import limit_threads, pick_device
from minigpt.tokenizers.chat_format import CHAT_TOKENS, ChatTemplate
from minigpt.training.display import Display
from minigpt.training.setup import TrainingSetup


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


def instruct(
    base: Run,
    data: str | Path | None = None,
    tasks: Sequence[str] = (),
    kept: Sequence[str] = (),
    method: Method = "full",
    shape: LoRAConfig | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Instructed:
    """Teach a copy of a run's model instructions, from a file of JSON lines or of the built-in tasks.

    Its vocabulary grows by the marks between turns, and of characters by those that the examples need; what it knew
    stays. Raises as `finetune` does, and DataError for examples that cannot be learned.
    """
    config = begun_from(base, method, **{"order": "epochs", "snapshots": 0} | settings)
    if base.config.model.quantization != "none" or base.config.model.architecture == "bigram":
        raise ConfigError("instructions need a transformer whose weights are in full precision: take another run")
    material = material_of(base, data, tasks, kept, config.training.seed)
    train, test = material.all
    tokenizer, old = extend_tokenizer(
        base.tokenizer, CHAT_TOKENS, (turn.text for example in train + test for turn in example.turns)
    )
    if method != "full":
        require_layers(base.model, targets, growing=None in old)
    template = ChatTemplate(tokenizer)
    config = config.override(vocab_size=tokenizer.vocab_size)
    own = OwnText.of(base, old)
    dataset = Instructions(train, test, template, config, own)
    before = {} if None in old else accuracies(base.model, template, material.test)
    training, device = config.training, pick_device(config.training.device)
    with Display(training) as display, limit_threads(config.activations_per_batch) as threads:
        display.say(f"text   {material.source}: {len(train):,} examples to learn, {len(test):,} held out")
        if dataset.truncated:
            display.say(f"       {dataset.truncated:,} are longer than block_size, and begin later than they did")
        torch.manual_seed(training.seed)
        model = resize_embeddings(copy.deepcopy(base.model), old, training.seed).to(device)
        accelerate(model, config)
        adapt(model, method, shape or LoRAConfig(), targets)
        if method != "full" and None in old:
            train_new_rows(model, old)
        trained = count_trained_parameters(model)
        start = TrainingSetup(material.corpus(), tokenizer, config, dataset, model, threads)
        wanted = Path(f"runs/{base.path.name or 'run'}-instructed" if out is None else out)
        about = {"instructions": True, "exchanges": max(example.exchanges for example in train), "documents": None}
        run = create_run(base, start, method, wanted, display, old, about)
        log = AccuracyLog(run.path, model, template, material.test, display.say)
        run, adapter = run_finetuning(
            base, run, start, method, display, old, callbacks=[log], measure=lambda: measured(run, dataset)
        )
        log.draw()
        after = accuracies(model, template, material.test)
        usual_answers = {task: majority(material.train.get(task, some), some) for task, some in material.test.items()}
        own_before, own_after = (own.loss_before(base.model), own.loss(model)) if own else (None, None)
    found = {task: (before.get(task), after[task], usual_answers[task]) for task in after}
    return Instructed(run, trained, found, own_before, own_after, dataset.truncated, adapter)


def require_layers(model: TrainedModel, targets: Sequence[str] | None, growing: bool) -> None:
    """Raise ConfigError for targets that can have no adapter, as the last layer can't while its rows grow."""
    chosen = select_layers(model, targets)
    if growing and not chosen.keys().isdisjoint(OUTSIDE_BLOCKS):
        raise ConfigError("lm_head gets rows for new tokens, and so no adapter: leave it out of the targets")


def measured(run: Run, dataset: Instructions) -> Evaluation:
    """The mean loss of all tokens of the held-out answers."""
    x, y = dataset.sample("val", len(dataset.parts["val"]))
    loss = compute_mean_loss(run.model, x, y)
    answered = y[y >= 0]
    size, characters = lengths_of(run.tokenizer)[answered].sum(0).tolist()
    total, count = nats_to_bits(loss) * len(answered), len(answered)
    per_byte, per_character = total / max(1, size), total / max(1, characters)
    return Evaluation(
        loss, per_byte, per_character, "held-out answers", characters, run.record.data_source, count, count
    )
