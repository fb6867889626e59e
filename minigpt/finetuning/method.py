"""The methods of fine-tuning (full, LoRA, QLoRA): the settings of each, and how it changes the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from minigpt.acceleration import choose_training_loops
from minigpt.config import Config
from minigpt.errors import ConfigError
from minigpt.finetuning.lora import apply_lora
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.settings import require_settings
from minigpt.finetuning.vocabulary_resize import train_new_rows
from minigpt.model import TrainedModel
from minigpt.model.quantization import quantize_layers
from minigpt.runs.run import Run
from minigpt.system.advice import format_setting
from minigpt.system.device import limit_threads, pick_device
from minigpt.training.precision import resolve_precision

Method = Literal["full", "lora", "qlora"]
DEFAULT_STEPS = 500
MIN_STEPS_PER_WARMUP_STEP = 5  # by default the warmup takes at most 1/5 of the steps
DEFAULT_RATES: dict[Method, float] = {"full": 1e-4, "lora": 1e-3, "qlora": 1e-3}


def derive_config(base: Run, method: Method, defaults: Mapping[str, Any], **settings: Any) -> Config:
    """Return the configuration of a fine-tuning: the base's, with fewer steps and a rate for the method.

    The optimizer is AdamW by default, whatever the base was trained with.

    Args:
        base: the run that is fine-tuned.
        method: what trains.
        defaults: settings of this kind of fine-tuning, which replace the base's.
        **settings: the user's settings, which replace all others.

    Raises:
        ConfigError: a setting is impossible, or is not one of a fine-tuning.
    """
    require_settings(settings)
    if settings.get("optimizer") == "muon" and method != "full":
        raise ConfigError(f"muon trains whole matrices, not adapters: choose {format_setting('optimizer', 'adamw')}")
    common = {
        "max_iters": DEFAULT_STEPS,
        "learning_rate": DEFAULT_RATES[method],
        "min_learning_rate": 0.0,
        "optimizer": "adamw",
        "quantization": "none",
        "threads": 0,
        "compiled_loops": "auto",
        "log_to": "none",
    }
    merged: dict[str, Any] = {"warmup_iters": base.config.training.warmup_iters, **common, **defaults, **settings}
    if "warmup_iters" not in settings and isinstance(merged["max_iters"], int):
        merged["warmup_iters"] = min(merged["warmup_iters"], merged["max_iters"] // MIN_STEPS_PER_WARMUP_STEP)
    return resolve_precision(base.config.override(**merged))


@contextmanager
def limit_batch_threads(config: Config, copies: int = 1) -> Iterator[Config]:
    """Limit PyTorch's threads to those that suit a batch, within the block.

    Args:
        config: the settings of the training.
        copies: how many rows an item of the batch has.

    Yields:
        The config with the number of threads and the choice of loops: a resumed run keeps both, and so its bits.
    """
    loops = choose_training_loops(config, pick_device(config.training.device).type)
    with limit_threads(copies * config.activations_per_batch, config.training.threads) as threads:
        yield config.override(threads=threads, compiled_loops=loops)


def prepare_model(
    model: TrainedModel,
    method: Method,
    lora: LoRAConfig,
    targets: Sequence[str] | None,
    old_ids: Sequence[int | None] = (),
) -> None:
    """Quantize the model, or add adapters to it, as the method needs, in place. Rows of new tokens train too.

    Args:
        model: the model, with the rows of new tokens.
        method: what trains.
        lora: the size and scaling of the adapters.
        targets: the layers that get an adapter, as for `apply_lora`.
        old_ids: what each token was in the base, None for a new one; empty if the vocabulary is the base's.
    """
    if method == "qlora":
        quantize_layers(model, "nf4")
    if method != "full":
        apply_lora(model, lora.rank, lora.alpha, lora.dropout, targets, rslora=lora.rslora, dora=lora.dora)
        if None in old_ids:
            train_new_rows(model, old_ids)
