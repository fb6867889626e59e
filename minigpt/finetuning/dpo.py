"""Train a run that follows instructions to prefer better answers, from pairs of answers (DPO)."""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.config import Config
from minigpt.data.shards import SPLITS
from minigpt.finetuning.accuracy import Accuracy
from minigpt.finetuning.dpo_dataset import PreferenceDataset, PreferencePair, read_pairs
from minigpt.finetuning.dpo_loss import DEFAULT_BETA, DPOModel, count_preferred
from minigpt.finetuning.example_split import make_corpus, report_split, split_by_questions
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.method import Method, derive_config, limit_batch_threads, prepare_model
from minigpt.finetuning.run_finetuning import Finetuning, Resumption, choose_path, describe_failure, describe_finetuning
from minigpt.finetuning.target_layers import select_layers
from minigpt.model import TrainedModel
from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.recorded_data import measure_data_files
from minigpt.runs.run import Run
from minigpt.system.device import pick_device
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.tokenizers.chat_format import ChatTemplate
from minigpt.training.callbacks import Callback
from minigpt.training.display import Display
from minigpt.training.objective import Objective
from minigpt.training.setup import TrainingSetup

DPO_RATES: dict[Method, float] = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}


@dataclass(frozen=True)
class DPOResult:
    """A run that has learned preferences, and how well it has.

    Attributes:
        run: an ordinary run; adapters are merged into its weights.
        preferred_before: held-out pairs in which the base gives the chosen answer the higher probability.
        preferred_after: the same for the fine-tuned run.
        loss: the mean loss of the held-out pairs in nats; ln 2 before the training.
        truncated: how many conversations were longer than block_size.
        adapter: the adapter's directory; None if all weights trained.
    """

    run: Run
    preferred_before: Accuracy
    preferred_after: Accuracy
    loss: float
    truncated: int
    adapter: Path | None

    @property
    def problem(self) -> str | None:
        """A sentence that says that the preferences were not learned; None if they were."""
        before, after = self.preferred_before, self.preferred_after
        if after.correct > before.correct or before.share == 1:
            return None
        shares = f"of {after.share:.1%} of the held-out pairs, before of {before.share:.1%}"
        return describe_failure(self.run, f"the chosen answer is the likelier one {shares}")


class PairObjective(Objective):
    """DPO's loss of pairs of answers.

    Attributes:
        model: the model with its reference, which computes the loss.
        dataset: the pairs.
    """

    def __init__(self, setup: TrainingSetup, model: DPOModel, dataset: PreferenceDataset) -> None:
        super().__init__(setup, model)
        self.model, self.dataset = model, dataset

    def estimate_loss(self, module: DPOModel, data: PreferenceDataset, eval_windows: int) -> dict[str, float]:
        """Return the mean loss of at most `eval_windows` pairs of each split, the same pairs each time."""
        batches = {split: data.get_evaluation_batch(split, eval_windows) for split in SPLITS}
        return {split: module.compute_mean_loss(x, y) for split, (x, y) in batches.items()}

    def measure_exact_loss(self) -> ExactLoss:
        """Return the mean loss of all held-out pairs. It has no bits per character."""
        x, y = self.dataset.get_all("val")
        corpus, count = self.setup.corpus, len(x) // 2
        loss = self.model.compute_mean_loss(x, y)
        return ExactLoss(loss, None, None, "held-out pairs", corpus.characters, corpus.source, count, count)


@use_pytorch_defaults()
def train_dpo(
    base: Run,
    data: str | Path,
    method: Method = "full",
    lora: LoRAConfig | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    beta: float = DEFAULT_BETA,
    resumption: Resumption | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> DPOResult:
    """Train a copy of a run's model on pairs of answers, and save it as a new run. The base is the reference.

    Args:
        base: a run that follows instructions; it stays as it is.
        data: a file of pairs, see dpo_dataset.py.
        method: as for `train_on_text`.
        lora: as for `train_on_text`.
        targets: as for `train_on_text`.
        out: the new run's directory; runs/<name>-preferring by default.
        beta: how close the model stays to the reference; larger is closer.
        resumption: as for `train_on_text`.
        callbacks: as for `train_on_text`.
        **settings: as for `train_on_text`.

    Raises:
        DataError: the run follows no instructions, or the pairs cannot be learned.
        ConfigError: an impossible setting or adapter.
        MinigptError: as `minigpt.train` does.
    """
    defaults = {"learning_rate": DPO_RATES[method], "order": "epochs", "snapshots": 0, "compiled_loops": "off"}
    config = resumption.config if resumption else derive_config(base, method, defaults, **settings)
    lora = lora or LoRAConfig()
    template = ChatTemplate(base.tokenizer)
    train, test = _hold_out_pairs(data, config.training.seed)
    if method != "full":
        select_layers(base.model, targets)  # checked before anything is written
    dataset = PreferenceDataset(train, test, template, config)
    with Display(config.training) as display, limit_batch_threads(config, copies=2) as config:
        report_split(display.say, str(data), train, test, "pairs")
        dataset.report_truncated(display.say, "answers")
        dpo_model = _build_model(base, config, method, lora, targets, beta)
        examples = [example for pair in train + test for example in (pair.chosen, pair.rejected)]
        corpus, threads = make_corpus(examples, f"the pairs in {data}"), config.training.threads
        setup = TrainingSetup(corpus, base.tokenizer, config, dataset, dpo_model.model, threads)
        preferred_before = _measure_preferred(base.model, dataset)
        described_data = {"data": str(data), "data_bytes": measure_data_files([data]), "beta": beta}
        finetuning_info = describe_finetuning("dpo", base, method, lora, targets, resumption, **described_data)
        finetuning = Finetuning(base, setup, finetuning_info, display, resumption=resumption)
        path = choose_path(base, out, "preferring")
        run = finetuning.start(path, instructions=True, exchanges=base.info.exchanges, documents=None)
        run, adapter = finetuning.train(run, callbacks, PairObjective(setup, dpo_model, dataset))
        preferred_after = _measure_preferred(run.model, dataset)
        loss = run.info.validation_loss
        assert loss is not None
        result = DPOResult(run, preferred_before, preferred_after, loss, dataset.truncated, adapter)
        if result.problem:
            display.say(result.problem, "yellow")
    return result


def _hold_out_pairs(data: str | Path, seed: int) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Read the pairs of a file, and return those to learn and those to test, the latter shuffled."""
    pairs = read_pairs(data)
    train, test = split_by_questions(pairs, [pair.chosen.questions for pair in pairs], f"{str(data)!r}", "pairs")
    random.Random(seed).shuffle(test)
    return train, test


def _build_model(
    base: Run, config: Config, method: Method, lora: LoRAConfig, targets: Sequence[str] | None, beta: float
) -> DPOModel:
    """Return two copies of the base's model on the device: one prepared as the method needs, and the reference."""
    device = pick_device(config.training.device)
    torch.manual_seed(config.training.seed)
    model = copy.deepcopy(base.model).to(device)
    prepare_model(model, method, lora, targets)
    return DPOModel(model, copy.deepcopy(base.model).to(device).eval(), beta)


def _measure_preferred(model: TrainedModel, dataset: PreferenceDataset) -> Accuracy:
    """Return in how many held-out pairs the chosen answer is the likelier one to the model."""
    x, y = dataset.get_all("val")
    return Accuracy(count_preferred(model, x, y), len(x) // 2)
