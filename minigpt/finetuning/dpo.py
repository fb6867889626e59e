"""From a run that follows instructions, and pairs of answers, to one that gives the better ones (DPO)."""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.data.corpus import Corpus
from minigpt.finetuning.accuracy import Accuracy
from minigpt.finetuning.dpo_dataset import BETA, Pairs, Preferring, preferred, read_pairs
from minigpt.finetuning.example_split import corpus_of, parted
from minigpt.finetuning.finetune import Method, adapt, begun_from, create_run, run_finetuning
from minigpt.finetuning.lora import LoRAConfig
from minigpt.finetuning.target_layers import select_layers
from minigpt.runs.run import Evaluation, Run
from minigpt.system.device import limit_threads, pick_device
from minigpt.tokenizers.chat_format import ChatTemplate
from minigpt.training.display import Display
from minigpt.training.setup import TrainingSetup

RATES = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}  # where none are given


@dataclass(frozen=True)
class Preferred:
    """What came of it.

    Attributes:
        before: of how many held-out pairs the chosen answer was the likelier one.
        after: of how many it is now.
        loss: the mean loss of the held-out pairs; ln 2 before.
        truncated: how many answers' conversations were longer than the model sees.
        adapter: the folder to hand on; None if all weights trained.
    """

    run: Run
    before: Accuracy
    after: Accuracy
    loss: float
    truncated: int
    adapter: Path | None


def prefer(
    base: Run,
    data: str | Path,
    method: Method = "full",
    shape: LoRAConfig | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    beta: float = BETA,
    **settings: Any,
) -> Preferred:
    """Teach a copy of a run's model to prefer answers, from a file of pairs; the run itself is the reference.

    Raises as `finetune` does, and DataError for a run that follows no instructions and pairs that cannot be learned.
    """
    config = begun_from(base, method, **{"learning_rate": RATES[method], "order": "epochs", "snapshots": 0} | settings)
    template = ChatTemplate(base.tokenizer)
    everything = read_pairs(data)
    train, test = parted(everything, [pair.chosen.asked for pair in everything], f"{str(data)!r}", "pairs")
    random.Random(config.training.seed).shuffle(test)
    if method != "full":
        select_layers(base.model, targets)
    pairs = Pairs(train, test, template, config)
    device = pick_device(config.training.device)
    with (
        Display(config.training) as display,
        limit_threads(2 * config.activations_per_batch) as threads,
    ):
        display.say(f"text   the pairs in {data}: {len(train):,} to learn, {len(test):,} held out")
        if pairs.truncated:
            display.say(f"       {pairs.truncated:,} answers are in talks longer than block_size, which begin later")
        torch.manual_seed(config.training.seed)
        model = copy.deepcopy(base.model).to(device)
        adapt(model, method, shape or LoRAConfig(), targets)
        preferring = Preferring(model, copy.deepcopy(base.model).to(device).eval(), beta)
        both = (example for pair in train + test for example in (pair.chosen, pair.rejected))
        corpus = corpus_of(both, f"the pairs in {data}")
        start = TrainingSetup(corpus, base.tokenizer, config, pairs, model, threads)

        wanted = Path(f"runs/{base.path.name or 'run'}-preferring" if out is None else out)
        before = Accuracy(preferred(base.model, pairs), len(test))
        about = {"instructions": True, "exchanges": base.record.exchanges, "documents": None}
        run = create_run(base, start, method, wanted, display, about=about)
        run, adapter = run_finetuning(
            base,
            run,
            start,
            method,
            display,
            objective=preferring,
            estimate=estimate,
            measure=lambda: measured(preferring, pairs, corpus),
        )
        after = Accuracy(preferred(run.model, pairs), len(test))
        assert run.record.validation_loss is not None
        return Preferred(run, before, after, run.record.validation_loss, pairs.truncated, adapter)


def estimate(preferring: Preferring, pairs: Pairs, count: int) -> dict[str, float]:
    """The mean loss of some pairs of each split, the same each time."""
    return {name: preferring.loss(*pairs.sample(name, count)) for name in ("train", "val")}


def measured(preferring: Preferring, pairs: Pairs, corpus: Corpus) -> Evaluation:
    """The mean loss of all held-out pairs, which has no bits per character."""
    x, y = pairs.sample("val", len(pairs.parts["val"]))
    count = len(x) // 2
    return Evaluation(
        preferring.loss(x, y), None, None, "held-out pairs", corpus.characters, corpus.source, count, count
    )
