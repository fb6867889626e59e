"""The entry point of `minigpt` and of `python -m minigpt`."""

import os
import signal
import sys
from types import FrameType

WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def main() -> None:
    """Run the command line and exit with its status.

    A signal may come at any moment. Ctrl-C exits with 130, SIGTERM with 143. SIGHUP, sent when the terminal is closed,
    exits with 129, unless the program was started with nohup.
    """
    _let_waiting_threads_sleep()
    signal.signal(signal.SIGTERM, _exit_on_signal)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _exit_on_signal)
    try:
        from minigpt.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    for number in (signal.SIGINT, signal.SIGTERM):  # the work is done: a signal must not change the status
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def _let_waiting_threads_sleep() -> None:
    """Let PyTorch's threads sleep while they wait for each other, unless the environment says otherwise.

    By default a waiting thread runs in circles. Beside another program it keeps the core from the very thread that it
    waits for, and a training becomes several times slower (docs/performance.md, "A busy machine"). OpenMP reads the
    setting once, when PyTorch is imported, so only the command can choose it, and `import minigpt` does not.
    """
    if not any(name in os.environ for name in WAIT_SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit with the status of a program that this signal ended."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
