"""The workbook: exercises in the order of the lecture, and checks that name the learner's mistake.

In a notebook, `check(7, my_class)` checks exercise 7. In a learner's file, `load_part` takes a part of an earlier
exercise. The command is `minigpt learn`.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.learn.judge import Verdict, check
    from minigpt.learn.parts import load_part

__all__ = ["Verdict", "check", "load_part"]

_MODULES = {"Verdict": "judge", "check": "judge", "load_part": "parts"}

__getattr__ = import_lazily(__name__, _MODULES)
