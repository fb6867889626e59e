"""Writing beside the training: what is to be on disk goes there in order, on a thread of its own."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Job = Callable[[], None]
AHEAD = 4  # jobs that may wait: who saves faster than a disk writes has to wait too


class Writer:
    """Does jobs one after another, and at the process's end those that still wait.

    A job's error is raised by a later call, in the thread that asks; none of the jobs after it is done.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "writer")
        self.jobs: deque[Future[None]] = deque()
        self.failed = False

    def do(self, job: Job) -> None:
        """Have a job done soon."""
        while self.jobs and (self.jobs[0].done() or len(self.jobs) >= AHEAD):
            self.jobs.popleft().result()
        self.jobs.append(self.pool.submit(self._work, job))

    def wait(self) -> None:
        """Until all is on disk."""
        while self.jobs:
            self.jobs.popleft().result()

    def stop(self) -> None:
        """Take no more, once what is under way is done; what waits then is not done, if all is over for an error."""
        self.pool.shutdown(cancel_futures=True)

    def _work(self, job: Job) -> None:
        if not self.failed:
            self.failed = True
            job()
            self.failed = False
