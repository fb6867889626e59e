"""The learner's files are checked in a process of their own: whatever they do, the answer is one clear sentence."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from learn_solutions import make_solution

from minigpt.learn.catalog import ENTRIES
from minigpt.learn.file_check import check_files
from minigpt.learn.judge import Verdict
from minigpt.learn.report import report_workbook
from minigpt.learn.workbook import PROGRESS, Workbook

VOCABULARY, MERGE, TRAINING = ENTRIES[0], ENTRIES[17], ENTRIES[18]  # these need no PyTorch, so their checks are fast
WRONG_FILES = {
    "syntax": (
        "def build_vocabulary(text:\n    pass\n",
        "01_vocabulary.py is not valid Python: '(' was never closed.",
        1,
    ),
    "import": (
        "import nonsense\n",
        "01_vocabulary.py cannot be run: ModuleNotFoundError: No module named 'nonsense'",
        1,
    ),
    "exit": (
        "print('hello')\nexit()\n",
        "01_vocabulary.py calls exit(), so it ends before the check: remove the call.",
        2,
    ),
    "missing": ("x = 1\n", "Your file has no build_vocabulary: keep the name that the exercise gave it.", None),
    "value": ("build_vocabulary = 3\n", "build_vocabulary must be a function or a class, and is 3.", None),
    "signature": (
        "def build_vocabulary(text, extra):\n    pass\n",
        "build_vocabulary must take (text), and yours takes (text, extra): keep the first line.",
        None,
    ),
}
BODIES = {
    "exception": (
        "    return 1 / 0\n",
        "ZeroDivisionError in build_vocabulary('ba'): division by zero",
        "return 1 / 0",
    ),
    "exit inside": ("    raise SystemExit\n", "Your code calls exit() in build_vocabulary('ba').", "raise SystemExit"),
    "difference": (
        "    return {c: 7 for c in text}, {}\n",
        "The result differs for build_vocabulary('ba'), stoi.",
        "",
    ),
    "nothing": (
        "    pass\n",
        "build_vocabulary must return 2 values: stoi, itos. Is `return` missing?",
        "",
    ),
    "input": ("    input()\n", "EOFError in build_vocabulary('ba'): EOF when reading a line", "input()"),
}
BODIES_OF_ENCODE = {
    "    pass\n": "The result differs for encode('ow', stoi): it is None and must be a list: is `return` missing?",
    "    return 'ab'\n": "The result differs for encode('ow', stoi): it is a string and must be a list.",
}
OTHERS = "def encode(text, stoi):\n    return [stoi[c] for c in text]\ndef decode(ids, itos):\n    return ''.join(itos[i] for i in ids)\n"  # noqa: E501


@pytest.fixture
def workbook(tmp_path: Path) -> Workbook:
    """A workbook of empty exercises."""
    return Workbook.start(tmp_path / "workbook")[0]


def check_code(workbook: Workbook, code: str, seconds: float = 10.0) -> Verdict:
    """Check a file of exercise 1."""
    workbook.get_path(VOCABULARY).write_text(code)
    (verdict,) = check_files(workbook, [VOCABULARY], seconds=seconds)
    return verdict


def test_each_broken_file_gets_one_clear_sentence(workbook: Workbook) -> None:
    for code, message, line in WRONG_FILES.values():
        verdict = check_code(workbook, code)
        assert not verdict.passed
        assert verdict.message == message
        assert verdict.line == ("" if line is None else f"line {line}: {code.splitlines()[line - 1]}")


def test_an_error_inside_is_shown_as_the_learners_own_line(workbook: Workbook) -> None:
    for body, message, line in BODIES.values():
        verdict = check_code(workbook, f"{OTHERS}def build_vocabulary(text):\n{body}")
        assert verdict.message == message
        assert verdict.line == (f"line 6: {line}" if line else "")
        assert "minigpt/" not in str(verdict)


def test_a_missing_return_is_asked_for(workbook: Workbook) -> None:
    for body, message in BODIES_OF_ENCODE.items():
        verdict = check_code(workbook, f"{make_solution(VOCABULARY)}\n\ndef encode(text, stoi):\n{body}")
        assert verdict.message == message


def test_prints_are_kept_and_a_right_file_passes(workbook: Workbook) -> None:
    verdict = check_code(workbook, f"print('hello')\n{make_solution(VOCABULARY)}")
    assert verdict.passed
    assert verdict.printed == "hello"
    assert workbook.is_done(VOCABULARY)
    workbook.get_path(VOCABULARY).write_text(f"# edited\n{make_solution(VOCABULARY)}")
    assert [status.state for status in workbook.list_status()][:2] == ["changed", "open"]


def test_an_endless_loop_ends_and_the_other_exercises_are_checked(workbook: Workbook) -> None:
    workbook.get_path(VOCABULARY).write_text(f"{OTHERS}def build_vocabulary(text):\n    while True:\n        pass\n")
    workbook.get_path(MERGE).write_text("import os\nos._exit(3)\n")
    workbook.get_path(TRAINING).write_text(make_solution(TRAINING))
    loop, lost, right = check_files(workbook, [VOCABULARY, MERGE, TRAINING], seconds=0.5)
    assert loop.message == "Your code ran for 0.5 seconds without an end: is there an endless loop?"
    assert loop.line in ("line 6: while True:", "line 7: pass")
    assert lost.message == "18_bpe_merge.py ended the process of the check with status 3: does it call os._exit?"
    assert right.passed
    assert right.message.endswith("Your own parts in it: none. The package's: count_pairs, merge_pair.")


def test_own_parts_are_used_once_they_have_passed(workbook: Workbook) -> None:
    for entry in (MERGE, TRAINING):
        workbook.get_path(entry).write_text(make_solution(entry))
    *_, verdict = check_files(workbook, [MERGE, TRAINING])
    assert verdict.message.endswith("Your own parts in it: count_pairs, merge_pair.")


def test_a_file_that_writes_leaves_the_folder_as_it_was(workbook: Workbook) -> None:
    code = f"open('02_batches.py', 'w').write('gone')\n{make_solution(VOCABULARY)}"
    before = workbook.get_path(ENTRIES[1]).read_text()
    assert check_code(workbook, code).passed
    assert workbook.get_path(ENTRIES[1]).read_text() == before
    assert {path.name for path in workbook.folder.iterdir()} == {PROGRESS, *(entry.file_name for entry in ENTRIES)}


def test_a_workbook_without_its_notes_is_found(workbook: Workbook) -> None:
    (workbook.folder / PROGRESS).unlink()
    assert Workbook.find(workbook.folder).find_next() == VOCABULARY


def test_start_makes_no_workbook_in_a_workbook(command: Callable) -> None:
    assert command("learn", "start", ".").returncode == 0
    done = command("learn", "start")
    assert (done.returncode, done.stderr) == (
        2,
        "minigpt: this folder is a workbook already: minigpt learn start . writes files that are missing\n",
    )


def test_start_leaves_files_as_they_are(workbook: Workbook) -> None:
    workbook.get_path(VOCABULARY).write_text("mine")
    workbook.get_path(MERGE).unlink()
    _, written = Workbook.start(workbook.folder)
    assert written == [MERGE]
    assert workbook.get_path(VOCABULARY).read_text() == "mine"


def test_a_report_says_what_passes(workbook: Workbook) -> None:
    for entry in ENTRIES:
        workbook.get_path(entry).unlink()
    workbook.get_path(VOCABULARY).write_text(make_solution(VOCABULARY))
    workbook.get_path(MERGE).write_text("x = 1\n")
    report = report_workbook(workbook.folder)
    assert report.passed == [1]
    assert report.mistakes[18] == "Your file has no count_pairs: keep the name that the exercise gave it."
    assert report.mistakes[2] == "There is no file."
    assert len(report.checked) == len(ENTRIES)


def test_the_commands(tmp_path: Path, command: Callable) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        done = command("learn", *words)
        return done.returncode, done.stdout, done.stderr

    def load(words: Sequence[str]) -> dict:
        return json.loads(run(*words)[1])

    assert run()[::2] == (2, "minigpt: there is no workbook here: minigpt learn start makes one\n")
    assert run("start")[1].startswith(f"wrote {len(ENTRIES)} exercises to workbook\n")
    status, out, _ = run("check")
    assert status == 1
    assert out.startswith("✗ This body is still to be written.\n  line ")
    (tmp_path / "workbook" / VOCABULARY.file_name).write_text(make_solution(VOCABULARY))
    status, out, _ = run("check")
    assert (status, out.splitlines()[0]) == (0, "✓ Exercise 1 passes: Vocabulary, encode and decode.")
    assert run()[1].splitlines()[0] == "✓  1  Vocabulary, encode and decode"
    listed = load(["--json"])
    assert listed["done"] == 1
    assert [row["state"] for row in listed["exercises"]][:2] == ["done", "open"]
    hints = [run("hint", "18")[1] for _ in range(4)]
    assert [hint.split(":")[0] for hint in hints] == [f"exercise 18, hint {n} of 3" for n in (1, 2, 3, 3)]
    assert run("hint")[1].startswith("exercise 2, hint 1 of 3: ")
    (tmp_path / "workbook" / MERGE.file_name).unlink()
    status, _, message = run("check", "18")
    assert (status, message) == (
        2,
        "minigpt: there is no 'workbook/18_bpe_merge.py': minigpt learn start workbook writes it anew\n",
    )
    assert run("start")[1].startswith("wrote 1 exercises to workbook\n")
    assert "def merge_pair(ids: Ids, pair: Pair, new: int) -> Ids:" in run("solution", "18")[1]
    assert "# minigpt/tokenizers/bpe_basic.py, line" in run("solution", "18")[1]
    assert load(["check", "1", "--json"])["checks"][0]["passed"]
    assert run("hint", "99")[::2] == (2, f"minigpt: there is no exercise 99: they run from 1 to {len(ENTRIES)}\n")
    assert run("report", "nowhere")[0] == 2
