"""Export a run to another program's format, and check the result in that program."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import ConfigError
from minigpt.exchange.export_check import LogitComparison
from minigpt.exchange.export_options import ExportOptions
from minigpt.exchange.export_target import replace_target
from minigpt.exchange.gguf_export import FILES as GGUF_FILES
from minigpt.exchange.gguf_export import QUANTIZATIONS, check_gguf, write_gguf
from minigpt.exchange.huggingface_export import FILES, check_huggingface, write_huggingface
from minigpt.exchange.lecture_export import FILES as LECTURE_FILES
from minigpt.exchange.lecture_export import check_lecture, write_lecture
from minigpt.exchange.nanogpt_export import FILES as NANOGPT_FILES
from minigpt.exchange.nanogpt_export import check_nanogpt, write_nanogpt
from minigpt.exchange.onnx_export import FILES as ONNX_FILES
from minigpt.exchange.onnx_export import QUANTIZATIONS as ONNX_QUANTIZATIONS
from minigpt.exchange.onnx_export import check_onnx, write_onnx
from minigpt.runs.run import Run
from minigpt.system.pytorch_settings import use_pytorch_defaults


@dataclass(frozen=True)
class Format:
    """A format that a run can be exported to.

    Attributes:
        files: names of the files in its folder.
        write: writes a run into a folder that does not exist yet. It raises ExchangeError if the format cannot hold
            the model or the tokenizer, and FileError if the folder cannot be written.
        check: opens the folder in another program, and compares the tokens and the logits with the run's. It returns
            None if the program is not installed, and raises ExchangeError if they differ.
        program: the program that opens it.
        install: the package that `pip install` installs for the check; empty if none is needed.
        quantizations: names of the number formats with fewer bits that it can have.
    """

    files: tuple[str, ...]
    write: Callable[[Run, Path, ExportOptions], None]
    check: Callable[[Run, Path, ExportOptions], LogitComparison | None]
    program: str
    install: str
    quantizations: tuple[str, ...] = ()


FORMATS = {
    "hf": Format(FILES, write_huggingface, check_huggingface, "transformers", "transformers"),
    "gguf": Format(GGUF_FILES, write_gguf, check_gguf, "llama.cpp", "llama-cpp-python", QUANTIZATIONS),
    "onnx": Format(ONNX_FILES, write_onnx, check_onnx, "onnxruntime", "onnxruntime", ONNX_QUANTIZATIONS),
    "nanogpt": Format(NANOGPT_FILES, write_nanogpt, check_nanogpt, "minigpt import nanogpt", ""),
    "lecture": Format(LECTURE_FILES, write_lecture, check_lecture, "the lecture's code", ""),
}


@dataclass(frozen=True)
class ExportResult:
    """An export that was written.

    Attributes:
        path: the folder.
        bytes: the size of its files together.
        program: the program that can open it.
        comparison: how that program's logits differ from the run's; None if the program is not installed, so that
            nothing was compared.
        install: what `pip install` needs for the program.
    """

    path: Path
    bytes: int
    program: str
    comparison: LogitComparison | None
    install: str

    @property
    def difference(self) -> float | None:
        """The largest difference of two logits; None if nothing was compared."""
        return self.comparison.difference if self.comparison else None


@use_pytorch_defaults()
def export_run(
    run: Run,
    to: str,
    out: str | Path | None = None,
    overwrite: bool = False,
    dequantize: bool = False,
    quantize: str | None = None,
) -> ExportResult:
    """Export a run, and compare its logits in the other program where that is installed.

    Args:
        run: the run.
        to: a key of FORMATS.
        out: the folder; exports/<name>-<format> by default.
        overwrite: whether to replace an earlier export.
        dequantize: whether to write a quantized run's matrices in full precision.
        quantize: one of the format's number formats with fewer bits; None for full precision.

    Raises:
        ConfigError: there is no such format.
        ExchangeError: the format cannot hold the run, or the other program computes other logits.
        FileError: the folder exists or cannot be written.
    """
    if to not in FORMATS:
        raise ConfigError(f"there is no format {to!r}: choose {', '.join(FORMATS)} or html")
    chosen = FORMATS[to]
    if quantize is not None and quantize not in chosen.quantizations:
        known = f"choose {' or '.join(chosen.quantizations)}" if chosen.quantizations else "leave --quantize out"
        raise ConfigError(f"the format {to} has no quantization {quantize!r}: {known}")
    options = ExportOptions(dequantize, quantize)
    path = Path(f"exports/{run.path.resolve().name}-{to}" if out is None else out)
    with replace_target(path, chosen.files, overwrite) as folder:
        chosen.write(run, folder, options)
        comparison = chosen.check(run, folder, options)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ExportResult(path, size, chosen.program, comparison, chosen.install)
