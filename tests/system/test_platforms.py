"""What a system lacks has a fallback: the tests take a part of Python away, as on Windows, and choose the fallback."""

import ctypes
import errno
import io
import mmap
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import run_code

import minigpt
from minigpt.system import device, files, process_memory, signals, standard_streams
from minigpt.system.cpus import count_cpus
from minigpt.system.detached_process import start_detached
from minigpt.system.fork_detector import ForkDetector
from minigpt.system.memory_map import map_file
from minigpt.system.process_file import find_process, name_process, signal_process

PACKAGE = Path(minigpt.__file__).parent
WITHOUT_POSIX = """
import mmap, os, signal, sys
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for module, names in (
    (os, ("fork", "fchmod", "pidfd_open", "sched_getaffinity", "getuid", "mkfifo", "register_at_fork")),
    (signal, ("SIGHUP", "pthread_sigmask", "pidfd_send_signal")),
    (mmap, ("MADV_RANDOM",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in [name for name in sys.modules if name.split(".")[0] == "minigpt"]:
    del sys.modules[name]
"""


def test_a_run_is_trained_resumed_and_sampled_without_what_only_posix_has(text_file: Path, tmp_path: Path) -> None:
    run_code(
        WITHOUT_POSIX
        + f"""
import minigpt
from minigpt.cli.main import run
from minigpt.system import process_file
assert not process_file.CAN_LOCK
os.chdir({str(tmp_path)!r})
os.mkdir("texts")
for number in range(30):
    open(f"texts/{{number}}.txt", "w", encoding="utf-8").write(f"sea {{number}} sings " * 50)
size = "--n-embd 16 --n-head 2 --n-layer 1 --block-size 16 --eval-interval 10 --eval-windows 4 --snapshots 0"
for line in (
    "data prepare texts --out prepared",
    f"train --data {text_file} --out runs/a --max-iters 10 --device cpu {{size}}",
    "train --resume runs/a --max-iters 20",
    f"train --data prepared --out runs/b --max-iters 10 --device cpu {{size}}",
    f"train --forecast --data {text_file} --max-iters 10 --device cpu {{size}}",
    "sample runs/a --max-new-tokens 5",
    "runs",
):
    assert run(line.split()) == 0, line
assert minigpt.load("runs/a").info.step == 20
"""
    )


def test_no_text_file_is_read_or_written_in_the_systems_own_encoding() -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--preview", "--select", "PLW1514", str(PACKAGE)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_system_asks_which_system_it_is() -> None:
    names = (
        "sys.platform",
        "os.name",
        "platform.system",
        "hasattr(os,",
        "hasattr(signal,",
        "import fcntl",
        "resource\n",
    )
    for file in sorted({*PACKAGE.rglob("*.py")} - {*(PACKAGE / "system").glob("*.py")}):
        code = file.read_text(encoding="utf-8")
        found = [name for name in names if name in code]
        if file.name in ("run_info.py", "checks.py"):  # they write down on which system a run was made
            found = [name for name in found if name != "platform.system"]
        assert not found, f"{file} has {found}"


def test_without_sighup_the_other_signals_stop_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signal.SIGHUP in signals.list_stop_signals()
    monkeypatch.delattr(signal, "SIGHUP")
    assert signals.list_stop_signals() == [signal.SIGINT, signal.SIGTERM]


def test_signals_are_blocked_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with signals.block_signals():
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.delattr(signal, "pthread_sigmask")
    with signals.block_signals():
        pass


def test_a_process_is_signalled_by_its_id_where_there_are_no_descriptors_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    received: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: received.append(number))
    with name_process(tmp_path / "pid"):
        assert find_process(tmp_path / "pid") == os.getpid()
        assert signal_process(tmp_path / "pid", signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_without_the_module_resource_the_memory_is_unknown_and_no_limit_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peak = process_memory.measure_peak_memory()
    assert peak is not None
    assert peak > 2**20
    monkeypatch.setitem(sys.modules, "resource", None)
    assert process_memory.measure_peak_memory() is None
    files.allow_open_files(10)


def test_a_file_is_mapped_without_advice_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"sea")
    assert map_file(tmp_path / "file")[:] == b"sea"
    monkeypatch.delattr(mmap, "MADV_RANDOM")
    assert map_file(tmp_path / "file")[:] == b"sea"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS])
def test_a_file_is_copied_where_there_are_no_hard_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"sea")
    files.link_or_copy(tmp_path / "file", tmp_path / "link")
    assert (tmp_path / "link").samefile(tmp_path / "file")

    def refuse(*paths: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    files.link_or_copy(tmp_path / "file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"sea"
    assert not (tmp_path / "copy").samefile(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link", "copy"}


def test_access_rights_are_left_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fchmod")
    (tmp_path / "file").write_bytes(b"old")
    files.write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("error", [TypeError, AttributeError, OSError])
def test_freed_memory_is_left_to_a_c_library_without_mallopt(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    device.keep_freed_memory.__wrapped__()


def test_cpus_are_counted_without_an_affinity_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert count_cpus(tmp_path) == 3


def test_closed_streams_are_opened_and_a_narrow_encoding_gets_the_number_of_a_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(sys, "stderr", None)
    standard_streams.prepare_output_streams()
    print("é海", file=sys.stderr)
    print("é海", end="", flush=True)
    assert narrow.buffer.getvalue() == b"\xe9\\u6d77"  # type: ignore[attr-defined]


def test_a_pipe_that_the_system_cannot_wait_for_counts_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as stream, os.fdopen(writing, "w", encoding="utf-8") as other:
        assert not standard_streams.can_read_within(stream, 0)
        other.write("text")
        other.flush()
        assert standard_streams.can_read_within(stream, 0)

        def refuse(*arguments: object) -> None:
            raise OSError("an operation was attempted on something that is not a socket")

        monkeypatch.setattr(select, "select", refuse)
        assert not standard_streams.can_read_within(stream, 0)


def test_a_detached_process_has_a_session_or_a_group_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os; print(os.getsid(0) == os.getpid())"
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        assert start_detached([sys.executable, "-c", code], log).wait() == 0
        log.seek(0)
        assert log.read() == "True\n"
        monkeypatch.setattr(subprocess, "DETACHED_PROCESS", 8, raising=False)  # as on Windows
        monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
        with pytest.raises(ValueError, match="creationflags is only supported on Windows"):
            start_detached([sys.executable, "-c", code], log)


def test_a_fork_is_detected_by_the_id_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = ForkDetector()
    assert not detector.is_forked
    detector.mark_started()
    assert not detector.is_forked
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert detector.is_forked
