"""Mini-Gpt: a small GPT to read, train and sample from.

    import minigpt
    run = minigpt.train(preset="lecture", max_iters=500)
    print(run.generate("ROMEO:", max_new_tokens=200))
    run = minigpt.load("runs/lecture")

The command `minigpt` does the same from a shell.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from minigpt.version import __version__

if TYPE_CHECKING:
    from minigpt.runs.run import Run

__all__ = ["Run", "__version__", "load", "train"]


def train(
    preset: str = "lecture", *, data: str | Path | None = None, out: str | Path | None = None, **fields: Any
) -> "Run":
    """Train a model and return its run. Progress goes to standard error.

    Args:
        preset: the settings to start from, such as "lecture" or "cpu-2min" (see `minigpt.presets.PRESETS`).
        data: a text file, or a folder made by `minigpt data prepare`. Default: input.txt in the current folder, else
            Tiny Shakespeare.
        out: the run's folder. Default: runs/<preset>. A name that is taken gets a number.
        **fields: settings that differ from the preset's, such as `max_iters=500` (see `minigpt.config`). `tokenizer`
            may also be the path of a tokenizer's file.

    Raises:
        MinigptError: the input cannot be used, or the training failed (see `minigpt.errors`).
    """
    from minigpt.config import UNSETTABLE, Config, TokenizerKind
    from minigpt.errors import ConfigError
    from minigpt.training.train import train

    tokenizer = fields.get("tokenizer", "char")
    if not isinstance(tokenizer, str | Path):
        raise ConfigError(f"tokenizer must be a kind or the path of a file, not a {type(tokenizer).__name__}")
    file = fields.pop("tokenizer") if tokenizer not in get_args(TokenizerKind) else None
    for name in UNSETTABLE:
        if name in fields:
            raise ConfigError(f"{name} is no setting of a new training run: leave it out")
    if "vocab_size" in fields and tokenizer not in ("bpe", "sentencepiece"):
        raise ConfigError(
            "vocab_size is only for the tokenizers bpe and sentencepiece, which are trained: leave it out"
        )
    return train(Config.from_preset(preset).override(**fields), data=data, out=out, tokenizer=file)


def load(path: str | Path, *, weights: Literal["last", "best"] = "last", device: str = "auto") -> "Run":
    """Open a run.

    Args:
        path: the run's folder.
        weights: the last weights, or those of the best evaluation.
        device: where to compute: "auto" takes a GPU if there is one; or "cpu", "cuda", "mps".

    Raises:
        RunError: the run is missing or damaged.
    """
    from minigpt.runs.run import Run

    return Run.open(path, weights, device)


def __getattr__(name: str) -> Any:
    """Import `Run` at its first use, because it needs PyTorch."""
    if name == "Run":
        from minigpt.runs.run import Run

        return Run
    raise AttributeError(f"module 'minigpt' has no attribute {name!r}")
