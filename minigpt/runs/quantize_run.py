"""Make a quantized copy of a run, and measure how much worse it is."""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from minigpt.acceleration import accelerate, describe_decoder
from minigpt.config import DataPath
from minigpt.errors import ConfigError, DataError, FileError
from minigpt.model import TrainedModel
from minigpt.model.gpt import GPT
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.loss import MAX_EVALUATED_TOKENS
from minigpt.model.quantization import Quantization, quantize_model
from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.pytorch_settings import use_pytorch_defaults

QUANTIZATION_BY_BITS: dict[int, Quantization] = {8: "int8", 4: "nf4"}


@dataclass(frozen=True)
class QuantizationResult:
    """A quantized run beside the original.

    Attributes:
        run: the quantized run.
        loss_before: the original's exact loss in nats per token; None if there is no text to measure.
        loss_after: the quantized run's.
        bytes_before: size of the original's weights.
        bytes_after: size of the quantized run's.
    """

    run: Run
    loss_before: float | None
    loss_after: float | None
    bytes_before: int
    bytes_after: int


@use_pytorch_defaults()
def quantize(base: Run, bits: int, out: str | Path | None = None, data: DataPath = None) -> QuantizationResult:
    """Save a copy of a run whose matrices have 8 or 4 bits a weight.

    Args:
        base: the original; it stays as it is.
        bits: 8 or 4.
        out: the new run's directory; runs/<name>-int8 or runs/<name>-nf4 by default.
        data: a text to measure both runs on; by default the run's own.

    Raises:
        ConfigError: `bits` is neither 4 nor 8, or the model has no blocks or is quantized already.
        DataError, FileError: if `data` cannot be measured.
    """
    if bits not in QUANTIZATION_BY_BITS:
        raise ConfigError(
            f"there is no layer of {bits} bits here: choose {' or '.join(map(str, QUANTIZATION_BY_BITS))}"
        )
    kind = QUANTIZATION_BY_BITS[bits]
    model = _copy_quantized(base, kind)
    config = base.config.override(quantization=kind, implementation="fast")
    accelerate(model, config)
    path = Path(f"runs/{base.path.name or 'run'}-{kind}" if out is None else out)
    run = Run(path, config, base.tokenizer, model, base.info, base.metrics)
    before, after = _measure_both(base, run, data)
    return QuantizationResult(
        run=_save(base, run, after if data is None else None),
        loss_before=before.loss if before else None,
        loss_after=after.loss if after else None,
        bytes_before=_count_bytes(base.model),
        bytes_after=_count_bytes(model),
    )


def _copy_quantized(base: Run, kind: Quantization) -> TrainedModel:
    """Return a quantized copy of a run's model. The lecture's model becomes a `GPT`."""
    model = copy.deepcopy(base.model)
    if isinstance(model, GPTLanguageModel):
        model = GPT.from_lecture(model.state_dict(), base.config.model.dropout)
    return quantize_model(model, kind).eval()


def _measure_both(base: Run, run: Run, data: DataPath) -> tuple[ExactLoss | None, ExactLoss | None]:
    """Measure both runs; None if the run's own text is missing."""
    try:
        limit = MAX_EVALUATED_TOKENS
        return base.evaluate(data, max_predictions=limit), run.evaluate(data, max_predictions=limit)
    except (DataError, FileError):
        if data is not None:
            raise
    return None, None


def _save(base: Run, run: Run, own_loss: ExactLoss | None) -> Run:
    """Save a quantized run in a new directory, and return it. `own_loss` is its loss on its own text, if known."""
    info = dataclasses.replace(
        base.info,
        base=str(base.path),
        generation=describe_decoder(run.model),
        validation_loss=own_loss.loss if own_loss else None,
        bits_per_byte=own_loss.bits_per_byte if own_loss else None,
        bits_per_character=own_loss.bits_per_character if own_loss else None,
    )
    directory = RunDirectory.create(run.path)
    directory.write_config(run.config)
    directory.write_tokenizer(run.tokenizer, run.config)
    directory.write_weights(run.model.state_dict())
    if run.metrics:
        directory.write_metrics(run.metrics)
    directory.write_info(info)
    return dataclasses.replace(run, path=directory.path, info=info)


def _count_bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
