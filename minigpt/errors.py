"""The exceptions that this package raises on purpose.

A caller catches `MinigptError`, or one branch of this tree::

    MinigptError
    ├── InputError                      the user's input cannot be used: exit status 2
    │   ├── ConfigError                 an unknown setting, or a value that is not allowed
    │   ├── DataError                   a text that cannot be used for training or evaluation
    │   │   └── UnknownCharacterError   a character outside the vocabulary
    │   ├── FileError                   a file or folder that cannot be read or written
    │   ├── RunError                    a run that is missing, damaged or from another version
    │   ├── DeviceError                 a device that this machine does not have
    │   ├── ExchangeError               a model that cannot be imported or exported
    │   └── MissingExtraError           an optional package that is not installed
    └── WorkError                       the work failed: exit status 1
        ├── DivergedError               the loss jumped, or is not a finite number
        ├── LostProcessError            another process of the same training ended
        └── OutOfMemoryError            the model or the batch does not fit in memory

Every message is one sentence that names the thing, its value and the way out. The command line
prints the message unchanged.
"""

import difflib
from collections.abc import Iterable

OTHER_NAMES = {  # a setting's name in other programs, and ours
    "lr": "learning_rate",
    "epochs": "max_iters",
    "iters": "max_iters",
    "steps": "max_iters",
    "max_steps": "max_iters",
    "batch": "batch_size",
    "context": "block_size",
    "ctx": "block_size",
    "seq_len": "block_size",
    "layers": "n_layer",
    "heads": "n_head",
    "dim": "n_embd",
    "hidden_size": "n_embd",
    "length": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "tokens": "max_new_tokens",
    "temp": "temperature",
    "text": "data",
    "input": "data",
    "file": "data",
    "output": "out",
    "force": "overwrite",
}


class MinigptError(Exception):
    """Base class of every error that this package raises on purpose.

    Attributes:
        exit_status: the exit status of the command line after this error.
        silent: True if another process of the same training reports the error.
    """

    exit_status = 1
    silent = False


class InputError(MinigptError):
    """The user's input cannot be used."""

    exit_status = 2


class ConfigError(InputError):
    """A setting does not exist, or its value is not allowed."""


class DataError(InputError):
    """A text cannot be used for training or evaluation."""


class UnknownCharacterError(DataError):
    """A character is not in the tokenizer's vocabulary.

    Attributes:
        character: the character.
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
    """A file or folder cannot be read or written."""


class RunError(InputError):
    """A run is missing, damaged, or from another version."""


class DeviceError(InputError):
    """This machine does not have the device, or the device lacks a feature."""


class ExchangeError(InputError):
    """A model cannot be imported, or cannot be exported to a format."""


class MissingExtraError(InputError):
    """A package that only some commands need is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package} is not installed: install it with pip install 'mini-gpt[{extra}]'")


class WorkError(MinigptError):
    """The input was valid, but the work failed."""


class DivergedError(WorkError):
    """The loss jumped, or is not a finite number."""


class LostProcessError(WorkError):
    """Another process of the same training ended."""


class OutOfMemoryError(WorkError):
    """The model or the batch does not fit in memory."""


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return a hint for a mistyped name, or an empty string if no known name is similar.

    >>> suggest_name("batch_siz", ["batch_size", "block_size"])
    "; did you mean 'batch_size'?"
    >>> suggest_name("lr", ["learning_rate", "block_size"])
    "; did you mean 'learning_rate'?"
    """
    names = list(known)
    other = OTHER_NAMES.get(name)
    matches = [other] if other in names else difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""
