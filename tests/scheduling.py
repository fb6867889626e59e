"""Which worker of pytest-xdist runs which test files, and in which order."""

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TESTS = Path(__file__).parent
SLOWEST_FIRST = (  # by CPU time with an empty cache of Numba, which the first of these files fills
    "kernels/test_numba_loops.py",
    "training/test_wrapping.py",
    "exchange/test_onnx_export.py",
    "distributed/test_processes.py",
    "test_readme.py",
    "training/test_resume.py",
    "web/test_trainings.py",
    "finetuning/test_resume_finetuning.py",
    "cli/test_commands.py",
    "distributed/test_two_hosts.py",
    "cli/test_tokenizer.py",
    "cli/test_modern.py",
    "test_hostile_files.py",
    "test_notebook.py",
    "studies/ladder/test_experiment.py",
    "training/test_fault_injection.py",
    "training/test_interrupt.py",
    "cli/test_data.py",
    "training/test_display.py",
    "training/test_diagnostics.py",
    "cli/test_finetune.py",
    "finetuning/test_dpo.py",
    "studies/look/test_views.py",
)


def sort_slowest_first(items: list[pytest.Item]) -> None:
    """Move the slowest files to the front, so that all workers end at about the same time."""
    places = {TESTS / name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


class LibraryScheduling(LoadFileScheduling):
    """`--dist loadfile`, but one worker runs all files that have a `LazyModule`: importing it takes seconds."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        files = (file for file in TESTS.rglob("test_*.py") if "LazyModule(" in file.read_text())
        self.with_libraries = {str(file.relative_to(config.rootpath)) for file in files}

    def _split_scope(self, nodeid: str) -> str:
        """Return the name of the group of tests that one worker runs."""
        file = super()._split_scope(nodeid)
        return "libraries" if file in self.with_libraries else file
