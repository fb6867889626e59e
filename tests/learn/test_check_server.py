"""One server checks several workbooks: nothing that a learner's file does reaches the next one."""

from pathlib import Path

import pytest
from learn_solutions import make_solution

from minigpt.learn.catalog import ENTRIES
from minigpt.learn.check_server import CheckServer
from minigpt.learn.file_check import check_files
from minigpt.learn.workbook import Workbook
from minigpt.system.fork_detector import CAN_FORK

VOCABULARY, MERGE = ENTRIES[0], ENTRIES[17]  # these need no PyTorch, so their checks are fast
START = "def build_vocabulary(text):\n    "
FILES = {
    "exit": (f"{START}exit()\n", "Your code calls exit() in build_vocabulary('ba')."),
    "os._exit": (
        f"{START}import os; os._exit(3)\n",
        "01_vocabulary.py ended the process of the check with status 3: does it call os._exit?",
    ),
    "loop": (f"{START}while True: pass\n", "Your code ran for 0.5 seconds without an end: is there an endless loop?"),
    "input": (f"{START}input()\n", "EOFError in build_vocabulary('ba'): EOF when reading a line"),
    "patch": (f"import builtins\ndel builtins.sorted\n{START}pass\n", ""),
}
OTHERS = "def encode(text, stoi):\n    pass\ndef decode(ids, itos):\n    pass\n"


def test_one_server_checks_several_workbooks(tmp_path: Path) -> None:
    with CheckServer() as server:
        for name, (code, message) in FILES.items():
            workbook, _ = Workbook.start(tmp_path / name)
            workbook.get_path(VOCABULARY).write_text(code + OTHERS)
            workbook.get_path(MERGE).write_text(make_solution(MERGE))
            wrong, right = check_files(workbook, [VOCABULARY, MERGE], seconds=0.5, server=server)
            assert not wrong.passed
            assert message in wrong.message
            assert right.passed


@pytest.mark.skipif(not CAN_FORK, reason="a process cannot be forked here")
def test_a_lost_server_is_started_again(tmp_path: Path) -> None:
    workbook, _ = Workbook.start(tmp_path)
    code = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    workbook.get_path(VOCABULARY).write_text(code)
    workbook.get_path(MERGE).write_text(make_solution(MERGE))
    with CheckServer() as server:
        wrong, right = check_files(workbook, [VOCABULARY, MERGE], server=server)
    assert wrong.message == "01_vocabulary.py ended the process of the check by signal 9: does it call os._exit?"
    assert right.passed
