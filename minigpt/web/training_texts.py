"""The training texts of the runs that were looked at last."""

import threading
from collections import OrderedDict

from minigpt.runs.run import Run
from minigpt.studies.look.view_input import ViewInput

MAX_TEXTS = 4  # each has up to ten million tokens


class TrainingTexts:
    """Keeps training texts in memory: to read and to decode one takes much longer than to search it.

    Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[object, ...], str] = OrderedDict()

    def read(self, run: Run) -> str:
        """Return the training split of a run's text.

        Raises:
            FileError: the text cannot be read.
            DataError: the text is not known, or has changed.
        """
        info = run.info
        key = run.path, info.data_sha256, info.tokenizer_sha256, run.config.training.train_fraction
        with self._lock:
            if key not in self._texts:
                self._texts[key] = ViewInput(run, None, (), None).training_text
            self._texts.move_to_end(key)
            while len(self._texts) > MAX_TEXTS:
                self._texts.popitem(last=False)
            return self._texts[key]
