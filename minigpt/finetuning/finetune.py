"""From a run and a text to a run that has learned it too: all of its weights, or adapters alone."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from minigpt.acceleration import accelerate, describe_decoder
from minigpt.config import Config, ModelConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError
from minigpt.finetuning.adapter_files import ADAPTER, compute_base_fingerprint, save_adapter
from minigpt.finetuning.lora import (
    LoRAConfig,
    apply_lora,
    compute_merged_weights,
    count_trained_parameters,
    merge_and_unload,
)
from minigpt.finetuning.replay import OwnText
from minigpt.finetuning.target_layers import select_layers
from minigpt.finetuning.vocabulary_resize import save_new_tokens
from minigpt.model import TrainedModel, count_parameters
from minigpt.model.quantization import quantize_layers
from minigpt.runs.run import Evaluation, Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.display import Display
from minigpt.training.precision import resolve_precision
from minigpt.training.run_training import create_record, run_training
from minigpt.training.setup import TrainingSetup, prepare_training

Method = Literal["full", "lora", "qlora"]
STEPS, RATES = 500, {"full": 1e-4, "lora": 1e-3, "qlora": 1e-3}  # where none are given


@dataclass(frozen=True)
class Finetuned:
    """What came of it.

    Attributes:
        run: an ordinary run, adapters merged into its weights.
        trained: how many parameters trained.
        before: of the base on the new text's validation split.
        after: of the run on the same.
        own_before: of the base on the validation split of its own text; None where that cannot be had any more.
        own_after: of the run on that: what it has forgotten.
        adapter: the folder to hand on; None if all weights trained.
    """

    run: Run
    trained: int
    before: Evaluation
    after: float
    own_before: float | None
    own_after: float | None
    adapter: Path | None


def finetune(
    base: Run,
    data: str | Path,
    method: Method = "lora",
    shape: LoRAConfig | None = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Finetuned:
    """Train a copy of a run's model on another text and leave it in a run folder of its own.

    With "lora" adapters train beside the frozen weights, with "qlora" beside weights kept in four bits; with "full" all
    train. `settings` are those of the training; what is not given is as the base's, but for the number of steps and the
    learning rate. Raises as `minigpt.train` does, and ConfigError for what the adapters cannot be.
    """
    shape = shape or LoRAConfig()
    few_bits = base.config.model.quantization != "none"
    if few_bits and method == "full":
        raise ConfigError("matrices in few bits cannot be trained: take the run they were made from, or --lora")
    config = begun_from(base, method, **settings)
    if method != "full":
        select_layers(base.model, targets)  # refused, if at all, before anything else
    name = base.path.name or "run"
    wanted = Path(f"runs/{name}-{method}" if out is None else out)

    def adapted(_: ModelConfig) -> TrainedModel:
        model = copy.deepcopy(base.model)
        adapt(model, method, shape, targets)
        return model

    with Display(config.training) as display, prepare_training(config, data, display, base.tokenizer, adapted) as start:
        require_same_model(base.config, start.config)
        trained = count_trained_parameters(start.model)
        assert isinstance(start.dataset, Dataset)
        before = Evaluation.of(base.model, start.dataset.val, base.tokenizer, "validation split", start.corpus.source)
        run = create_run(base, start, method, wanted, display)
        run, adapter = run_finetuning(base, run, start, method, display)
        assert run.record.validation_loss is not None
        own = OwnText.of(base)
        own_before, own_after = (own.loss_before(base.model), own.loss(run.model)) if own else (None, None)
        return Finetuned(run, trained, before, run.record.validation_loss, own_before, own_after, adapter)


def begun_from(base: Run, method: Method, **settings: Any) -> Config:
    """The configuration of a fine-tuning: the base's, but for the number of steps, the rates, and what is given.

    AdamW trains it, whatever the base was trained by, unless Muon is asked for, which moves whole matrices only.
    Raises ConfigError for a setting that cannot be.
    """
    if settings.get("optimizer") == "muon" and method != "full":
        raise ConfigError("muon moves whole matrices, and adapters are parts of some: choose --optimizer adamw")
    if settings.get("max_minutes") is not None:
        raise ConfigError("a budget of time is for training from the start: name max_iters")
    usual = {"max_iters": STEPS, "learning_rate": RATES[method], "min_learning_rate": 0.0, "optimizer": "adamw"}
    return resolve_precision(base.config.override(**(usual | {"quantization": "none"} | settings)))


def create_run(
    base: Run,
    setup: TrainingSetup,
    method: Method,
    wanted: Path,
    display: Display,
    old: Sequence[int | None] = (),
    about: Mapping[str, Any] | None = None,
) -> Run:
    """Make the directory of a fine-tuned run, and return the run before its first step.

    Args:
        base: the run that is fine-tuned.
        setup: the data and the model, adapters included.
        method: what trains.
        wanted: the path; if it is taken, a number is added.
        display: says what trains and where the run is.
        old: each token's id in the base, None for a new token; empty if the vocabulary is the base's.
        about: more fields of the record.
    """
    directory = RunDirectory.create(wanted)
    trained = count_trained_parameters(setup.model)
    record = dataclasses.replace(
        create_record(setup),
        parameters=count_parameters(setup.model if method == "full" or None in old else base.model),
        trained_parameters=trained,
        base=str(base.path),
        generation=describe_decoder(base.model),
        **(about or {}),
    )
    directory.write_config(setup.config)
    directory.write_record(record)
    directory.write_tokenizer(setup.tokenizer, setup.config)
    share = f"{trained:,} of {record.parameters:,} parameters train"
    display.say(f"model  {base.path}, {method}: {share}\nrun    {directory.path}\n")
    return Run(directory.path, setup.config, setup.tokenizer, setup.model, record, [])


def run_finetuning(
    base: Run,
    run: Run,
    setup: TrainingSetup,
    method: Method,
    display: Display,
    old: Sequence[int | None] = (),
    **options: Any,
) -> tuple[Run, Path | None]:
    """Train a run that `create_run` made, and return it with the directory of its adapter, None if all weights train.

    Adapters are merged into the weights at the end. `options` are those of `run_training`.
    """
    if method == "full":
        return run_training(run, setup, display, **options), None
    try:
        run = run_training(run, setup, display, merge=saving(run, compute_base_fingerprint(base.model), old), **options)
    finally:
        merge_and_unload(setup.model)
        accelerate(setup.model, setup.config)
    return run, run.path / ADAPTER


def adapt(model: TrainedModel, method: Method, shape: LoRAConfig, targets: Sequence[str] | None) -> None:
    """Make a model ready for the method, in place."""
    if method == "qlora":
        quantize_layers(model, "nf4")
    if method != "full":
        apply_lora(model, shape.rank, shape.alpha, shape.dropout, targets, rslora=shape.rslora, dora=shape.dora)


def saving(run: Run, base_sha256: str, old: Sequence[int | None] = ()) -> Callable[[], Mapping[str, Tensor]]:
    """What to call for the weights to save: those of an ordinary model; the adapter is then saved too."""

    def weights() -> Mapping[str, Tensor]:
        ordinary = compute_merged_weights(run.model)
        save_adapter(run.model, run.path / ADAPTER, base_sha256=base_sha256)
        if None in old:
            save_new_tokens(run.path / ADAPTER, ordinary, old, run)
        return ordinary

    return weights


def require_same_model(base: Config, now: Config) -> None:
    """Raise ConfigError for a setting that would make it another model."""
    for name in ModelConfig.names():
        if name not in ("dropout", "quantization") and getattr(base.model, name) != getattr(now.model, name):
            raise ConfigError(f"{name} is {getattr(base.model, name)} in the base, and cannot be changed: leave it out")
