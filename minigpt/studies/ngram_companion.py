"""The n-gram model of a run's training text: what counting alone learns from the same text."""

import dataclasses
from typing import cast

from minigpt.model import TrainedModel
from minigpt.model.ngram import NGramModel
from minigpt.runs.run import Run

ORDER = 7  # the best one on Tiny Shakespeare
MAX_TOKENS = 20_000_000  # tokens of the training split that are counted


def fit_ngram_companion(run: Run) -> Run:
    """Return the run with the n-gram model of its training split in place of its own model.

    Args:
        run: a run whose training text is still there.

    Raises:
        FileError: the text cannot be read.
        DataError: the text is not known, or has changed.
    """
    ids = run.dataset().train[:MAX_TOKENS]
    model = NGramModel.fit(ids, run.config.model.vocab_size, ORDER)
    return dataclasses.replace(run, model=cast(TrainedModel, model))  # it can do all that generation asks of a model
