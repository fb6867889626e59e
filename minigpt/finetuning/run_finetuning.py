"""What fine-tuning on a text, on instructions and on preferences have in common: the config, the run, the training."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from minigpt.acceleration import accelerate, describe_decoder
from minigpt.config import Config
from minigpt.errors import ConfigError
from minigpt.finetuning.adapter_files import compute_base_fingerprint, save_adapter
from minigpt.finetuning.lora import (
    LoRAConfig,
    apply_lora,
    compute_merged_weights,
    count_trained_parameters,
    merge_and_unload,
)
from minigpt.finetuning.vocabulary_resize import save_new_tokens
from minigpt.model import TrainedModel, count_parameters
from minigpt.model.quantization import quantize_layers
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.display import Display
from minigpt.training.precision import resolve_precision
from minigpt.training.run_training import create_record, run_training
from minigpt.training.setup import TrainingSetup

Method = Literal["full", "lora", "qlora"]
DEFAULT_STEPS = 500
DEFAULT_RATES: dict[Method, float] = {"full": 1e-4, "lora": 1e-3, "qlora": 1e-3}


def derive_config(base: Run, method: Method, **settings: Any) -> Config:
    """Return the configuration of a fine-tuning: the base's, with fewer steps and a rate for the method.

    The optimizer is AdamW by default, whatever the base was trained with.

    Args:
        base: the run that is fine-tuned.
        method: what trains.
        **settings: settings that replace these.

    Raises:
        ConfigError: an impossible setting.
    """
    if settings.get("optimizer") == "muon" and method != "full":
        raise ConfigError("muon moves whole matrices, and adapters are parts of some: choose --optimizer adamw")
    if settings.get("max_minutes") is not None:
        raise ConfigError("max_minutes is for training from the start: name max_iters")
    defaults = {
        "max_iters": DEFAULT_STEPS,
        "learning_rate": DEFAULT_RATES[method],
        "min_learning_rate": 0.0,
        "optimizer": "adamw",
        "quantization": "none",
    }
    return resolve_precision(base.config.override(**(defaults | settings)))


def prepare_model(model: TrainedModel, method: Method, lora: LoRAConfig, targets: Sequence[str] | None) -> None:
    """Quantize the model, or add adapters to it, as the method needs, in place."""
    if method == "qlora":
        quantize_layers(model, "nf4")
    if method != "full":
        apply_lora(model, lora.rank, lora.alpha, lora.dropout, targets, rslora=lora.rslora, dora=lora.dora)


def create_run(
    base: Run,
    setup: TrainingSetup,
    method: Method,
    path: Path,
    display: Display,
    fields: Mapping[str, Any] | None = None,
    old_ids: Sequence[int | None] = (),
) -> Run:
    """Make the directory of a fine-tuned run, and return the run before its first step.

    Args:
        base: the run that is fine-tuned.
        setup: the data and the model, adapters included.
        method: what trains.
        path: the directory; if it is taken, a number is added.
        display: says what trains and where the run is.
        fields: more fields of the record.
        old_ids: what each token was in the base, None for a new one; empty if the vocabulary is the base's.
    """
    directory = RunDirectory.create(path)
    trained = count_trained_parameters(setup.model)
    record = dataclasses.replace(
        create_record(setup),
        parameters=count_parameters(setup.model if method == "full" or None in old_ids else base.model),
        trained_parameters=trained,
        base=str(base.path),
        generation=describe_decoder(base.model),
        **(fields or {}),
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
    options: Mapping[str, Any] | None = None,
    old_ids: Sequence[int | None] = (),
) -> tuple[Run, Path | None]:
    """Train a run that `create_run` made. At the end adapters are merged into its weights.

    Args:
        base: the run that is fine-tuned.
        run: the new run.
        setup: the data and the model, adapters included.
        method: what trains.
        display: shows the progress.
        options: more arguments of `run_training`.
        old_ids: what each token was in the base, None for a new one; empty if the vocabulary is the base's.

    Returns:
        The trained run, and the directory of its adapter; None if all weights trained.
    """
    if method == "full":
        return run_training(run, setup, display, **(options or {})), None
    adapter, base_sha256 = RunDirectory(run.path).adapter, compute_base_fingerprint(base.model)

    def merge() -> Mapping[str, Tensor]:
        """Save the adapter, and return the merged weights."""
        weights = compute_merged_weights(run.model)
        save_adapter(run.model, adapter, base_sha256=base_sha256)
        if None in old_ids:
            save_new_tokens(adapter, weights, old_ids, run)
        return weights

    try:
        trained_run = run_training(run, setup, display, merge=merge, **(options or {}))
    finally:
        merge_and_unload(setup.model)
        accelerate(setup.model, setup.config)
    return trained_run, adapter


def choose_path(base: Run, out: str | Path | None, suffix: str) -> Path:
    """Return `out`, or by default runs/<name of the base>-<suffix>."""
    return Path(f"runs/{base.path.name or 'run'}-{suffix}" if out is None else out)
