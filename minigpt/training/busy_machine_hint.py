"""A hint for a training beside other programs: one thread may be faster than several that wait for each other."""

import time
from collections.abc import Callable

from minigpt.system.advice import format_setting
from minigpt.system.thread_waiting import measure_cpu_wait
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.display import Display
from minigpt.training.training_state import TrainingState

HINT_SHARE = 0.25  # the hint comes if the threads together waited for a CPU for this share of the time


class BusyMachineHint(Callback):
    """Says once, after an evaluation, that other programs use the CPUs."""

    def __init__(self, display: Display, threads: int, measure: Callable[[], float] = measure_cpu_wait) -> None:
        """Begin to measure.

        Args:
            display: prints the hint.
            threads: CPU threads of the training. With one thread there is nothing to say.
            measure: returns for how many seconds the threads have waited for a CPU.
        """
        self.display, self.threads, self.measure = display, threads, measure
        self.is_printed = threads == 1
        self.waited, self.start = measure(), time.monotonic()

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        """Measure, and print the hint."""
        waited, now = self.measure(), time.monotonic()
        if state.step and not self.is_printed and waited - self.waited > HINT_SHARE * (now - self.start):
            self.is_printed = True
            way_out = f"instead of {self.threads} threads, {format_setting('threads', 1)} may be faster"
            self.display.say(f"other programs use the CPUs: {way_out}")
        self.waited, self.start = waited, now
