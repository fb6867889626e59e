"""Mini-Gpt: a small GPT you can read, train and sample from.

    import minigpt
    run = minigpt.train(preset="lecture", max_iters=500)
    print(run.generate("ROMEO:", max_new_tokens=200))
    run = minigpt.load("runs/lecture")

The command `minigpt` does the same from a shell.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from minigpt.runs.run import Run

__version__ = "0.1.0"
__all__ = ["load", "train"]


def train(
    preset: str = "lecture", *, data: str | Path | None = None, out: str | Path | None = None, **fields: Any
) -> "Run":
    """Train a model and return the run.

    Arguments:
        preset: where the settings come from, such as "lecture" or "cpu-2min" (minigpt.presets.PRESETS).
        data: a text file, or a folder of `minigpt data prepare`; without it input.txt in this folder, else Tiny
            Shakespeare.
        out: the run's folder; without it runs/<preset>. A name already taken gets a number.
        fields: settings that differ from the preset's, such as `max_iters=500` (see minigpt.config); `tokenizer`
            may also be the path of a tokenizer's file.

    Progress goes to standard error. Raises MinigptError (see minigpt.errors) for what cannot be done.
    """
    from minigpt.config import Config, TokenizerKind
    from minigpt.errors import ConfigError
    from minigpt.training.train import train

    kind = fields.get("tokenizer", "char")
    if not isinstance(kind, str | Path):
        raise ConfigError(f"tokenizer must be the name of a kind or the path of a file, not {type(kind).__name__}")
    file = fields.pop("tokenizer") if kind not in get_args(TokenizerKind) else None
    if "vocab_size" in fields and kind not in ("bpe", "sentencepiece"):
        raise ConfigError(
            "vocab_size is only for the tokenizers bpe and sentencepiece, which are learned: leave it out"
        )
    return train(Config.from_preset(preset).override(**fields), data=data, out=out, tokenizer=file)


def load(path: str | Path, *, weights: Literal["last", "best"] = "last", device: str = "auto") -> "Run":
    """Open a run folder, with its last weights or those of its best evaluation.

    Raises RunError, naming the file, if it is missing or damaged.
    """
    from minigpt.runs.run import Run

    return Run.open(path, weights, device)
