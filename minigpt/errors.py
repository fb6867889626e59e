"""Everything that can go wrong on purpose.

A caller catches `MinigptError`, or the branch of it that concerns them:

    MinigptError
    ├── InputError              the user's input; exit status 2
    │   ├── ConfigError         a setting that does not exist or cannot be
    │   ├── DataError           a text that cannot be trained on or evaluated
    │   │   └── UnknownCharacterError   a character outside the vocabulary
    │   ├── FileError           a file or folder that cannot be read or written
    │   ├── RunError            a run folder that is missing, broken or foreign
    │   ├── DeviceError         a device this machine does not have
    │   ├── ExchangeError       a model from elsewhere that cannot be read, or one that cannot be written
    │   └── MissingExtraError   a package that only some commands need
    └── WorkError               the work itself failed; exit status 1
        ├── DivergedError       the loss jumped, or stopped being a number
        ├── LostProcessError    another process of the same training has ended
        └── MemoryShortError    the model or batch does not fit in memory

Every message is one sentence that names the thing, the value and the way out: the command line
prints it as it stands.
"""

import difflib
from collections.abc import Iterable


class MinigptError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        silent: whether another process says it.
    """

    exit_status = 1
    silent = False


class InputError(MinigptError):
    """The user's input cannot be used."""

    exit_status = 2


class ConfigError(InputError):
    """A setting that does not exist, or has a value it cannot have."""


class DataError(InputError):
    """A text that cannot be trained on or evaluated."""


class UnknownCharacterError(DataError):
    """A character that is not in the tokenizer's vocabulary.

    Attributes:
        character: the character itself.
        position: its index in the text, from 0.
    """

    def __init__(self, character: str, position: int, vocab_size: int) -> None:
        self.character = character
        self.position = position
        super().__init__(
            f"the character {character!r} (U+{ord(character):04X}) at position {position} is not among "
            f"the {vocab_size} characters of this vocabulary: remove it, or train on a text that has it"
        )


class FileError(InputError):
    """A file or folder that cannot be read or written."""


class RunError(InputError):
    """A run folder that is missing, broken, or written by another version."""


class DeviceError(InputError):
    """A device this machine does not have."""


class ExchangeError(InputError):
    """A model from elsewhere that cannot be read, or one that cannot be written in another's format."""


class MissingExtraError(InputError):
    """A package that only some commands need is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package} is not installed: pip install 'mini-gpt[{extra}]' brings it")


class WorkError(MinigptError):
    """The input was fine, the work failed."""


class DivergedError(WorkError):
    """The loss is no longer a finite number."""


class LostProcessError(WorkError):
    """Another process of the same training has ended."""


class MemoryShortError(WorkError):
    """The model, or a batch of it, does not fit in memory."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'batch_size'?"` for a mistyped name, or an empty string if nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""
