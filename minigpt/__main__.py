"""The entry point of `minigpt` and of `python -m minigpt`."""

import gc
import signal
import sys

from minigpt.system.signals import exit_on_signals

GARBAGE_THRESHOLD = 50_000  # objects; Python's default of 700 searches for garbage again and again during imports


def main() -> None:
    """Run the command line and exit with its status.

    A signal may come at any moment. Ctrl-C exits with 130, SIGTERM with 143. SIGHUP, sent when the terminal is closed,
    exits with 129, unless the program was started with nohup.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    exit_on_signals()
    try:
        from minigpt.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    for number in (signal.SIGINT, signal.SIGTERM):  # the work is done: a signal must not change the status
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


if __name__ == "__main__":
    main()
