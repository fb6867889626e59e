"""Write files on a thread beside the training."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Job = Callable[[], None]
MAX_WAITING = 4  # jobs; a training that saves faster than the disk writes has to wait


class AsyncWriter:
    """Runs jobs one after another on one thread.

    A job's error is raised by a later call, in the calling thread. The jobs after a failed one do not run.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "writer")
        self.jobs: deque[Future[None]] = deque()
        self.has_failed = False

    def submit(self, job: Job) -> None:
        """Run a job soon. Waits if too many jobs wait already."""
        while self.jobs and (self.jobs[0].done() or len(self.jobs) >= MAX_WAITING):
            self.jobs.popleft().result()
        self.jobs.append(self.pool.submit(self._run, job))

    def flush(self) -> None:
        """Wait until every job is done."""
        while self.jobs:
            self.jobs.popleft().result()

    def stop(self) -> None:
        """Finish the running job, then stop. After an error, drop the queued jobs."""
        self.pool.shutdown(cancel_futures=True)

    def _run(self, job: Job) -> None:
        if not self.has_failed:
            self.has_failed = True
            job()
            self.has_failed = False
