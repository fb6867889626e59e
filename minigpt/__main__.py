"""The way in: `minigpt`, and `python -m minigpt`."""

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line and exit with its status: 130 after Ctrl-C at whatever moment, 143 after SIGTERM.

    A terminal that is closed, SIGHUP, ends it with 129, unless it was started with nohup.
    """
    signal.signal(signal.SIGTERM, terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, terminate)
    try:
        from minigpt.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    for number in (signal.SIGINT, signal.SIGTERM):  # the work is over: there is nothing to stop any more
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def terminate(number: int, frame: FrameType | None) -> None:
    """Exit as a program does that the signal ended."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
