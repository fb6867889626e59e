"""What an exercise consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One computation with the learner's code. The same computation with the reference gives the expected result.

    Attributes:
        about: what is computed, for a message: "encode('hello', stoi)".
        compute: computes with the functions and classes of a namespace, and returns numbers, strings, tensors, or
            lists and dicts of them. It makes its inputs anew at each call.
    """

    about: str
    compute: Callable[[Any], Any]


@dataclass(frozen=True)
class Mistake:
    """A mistake that people make, as code.

    Attributes:
        when: completes the sentence "This is what comes out when …".
        variants: the wrong functions or classes, by the names of the right ones.
    """

    when: str
    variants: dict[str, Any]

    def __post_init__(self) -> None:
        """Give wrong classes the name of the right one, so that messages about them are those of the learner's."""
        for name, variant in self.variants.items():
            if isinstance(variant, type):
                variant.__name__ = name


@dataclass(frozen=True)
class Exercise:
    """An exercise: its text, the reference, and the checks.

    Attributes:
        text: the idea, and the shapes.
        references: the functions and classes that the learner writes, as the package has them.
        cases: the computations to compare, the smallest input first.
        mistakes: the usual mistakes.
        hints: from a small hint to nearly the answer.
        experiment: Python lines that print something worth seeing.
        imports: the import lines of the learner's file.
        parts: classes of earlier exercises that the learner's file uses.
        kept: functions whose body stays, such as "Head.__init__".
        dropped: methods that the exercise leaves out, such as "GPTLanguageModel.generate".
        trial: a long last check, such as a training. It gets the namespace, the text, and a function that prints. It
            returns what the learner reads, and raises WorkbookError if the check fails.
    """

    text: str
    references: tuple[Any, ...]
    cases: tuple[Case, ...]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    experiment: str
    imports: str = ""
    parts: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    trial: Callable[[Any, str, Callable[[str], None]], str] | None = None


class WorkbookError(Exception):
    """The learner's code cannot be checked; the message is one sentence for the learner."""
