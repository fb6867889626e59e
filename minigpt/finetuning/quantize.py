"""A run with its matrices in eight or four bits: a run like any other, smaller, and how much worse it is."""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from minigpt.acceleration import accelerate, describe_decoder
from minigpt.errors import ConfigError, DataError, FileError
from minigpt.model.gpt import GPT
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.quantization import Quantization, quantize_model
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory

KINDS: dict[int, Quantization] = {8: "int8", 4: "nf4"}


@dataclass(frozen=True)
class Quantized:
    """The new run beside its original: exact losses, None where no text can be had, and sizes of weights in bytes."""

    run: Run
    before: float | None
    after: float | None
    bytes_before: int
    bytes_after: int


def quantize(base: Run, bits: int, out: str | Path | None = None, data: str | Path | None = None) -> Quantized:
    """Leave a copy of a run, its matrices in so many bits, in a folder of its own; `data` is a text to measure both on.

    Raises ConfigError for other than 8 or 4 bits, and for a model without blocks or in few bits already.
    """
    if bits not in KINDS:
        raise ConfigError(f"there is no layer of {bits} bits here: choose {' or '.join(map(str, KINDS))}")
    kind = KINDS[bits]
    model = copy.deepcopy(base.model)
    if isinstance(model, GPTLanguageModel):
        model = GPT.from_lecture(model.state_dict(), base.config.model.dropout)
    model = quantize_model(model, kind).eval()
    config = base.config.override(quantization=kind, implementation="fast")
    accelerate(model, config)
    wanted = Path(f"runs/{base.path.name or 'run'}-{kind}" if out is None else out)
    record = dataclasses.replace(base.record, base=str(base.path), generation=describe_decoder(model))
    run = Run(wanted, config, base.tokenizer, model, record, base.metrics)
    before = after = per_byte = per_character = None
    try:
        before, measured = base.evaluate(data).loss, run.evaluate(data)
        after, per_byte, per_character = measured.loss, measured.bits_per_byte, measured.bits_per_character
    except (DataError, FileError):
        if data is not None:
            raise
    if data is not None:  # which says nothing of the validation split
        per_byte = per_character = None
    record = dataclasses.replace(
        record,
        validation_loss=after if data is None else None,
        bits_per_byte=per_byte,
        bits_per_character=per_character,
    )
    folder = RunDirectory.create(wanted)
    folder.write_config(config)
    folder.write_tokenizer(base.tokenizer, config)
    folder.write_weights(model.state_dict())
    if base.metrics:
        folder.write_metrics(base.metrics)
    folder.write_record(record)
    sizes = [sum(t.numel() * t.element_size() for t in m.state_dict().values()) for m in (base.model, model)]
    return Quantized(dataclasses.replace(run, path=folder.path, record=record), before, after, sizes[0], sizes[1])
