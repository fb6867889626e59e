"""The loss that a training run minimizes, and the evaluation at its end."""

from typing import Any

from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.model import LanguageModel
from minigpt.runs.exact_loss import ExactLoss
from minigpt.training.evaluation import estimate_loss
from minigpt.training.setup import TrainingSetup


class Objective:
    """The loss of the next token, for pre-training and for fine-tuning on a text. A subclass has another loss.

    Attributes:
        setup: the data and the model.
        module: computes the logits and the loss of a batch.
    """

    def __init__(self, setup: TrainingSetup, module: LanguageModel | None = None) -> None:
        self.setup = setup
        self.module = module or setup.model

    def estimate_loss(self, module: Any, data: Any, eval_windows: int) -> dict[str, float]:
        """Return the loss of both splits during the training, as {"train": …, "val": …}; see `estimate_loss`."""
        return estimate_loss(module, data, eval_windows)

    def measure_exact_loss(self) -> ExactLoss:
        """Return the exact loss at the end of the training: here that of the validation split."""
        setup, corpus = self.setup, self.setup.corpus
        assert isinstance(setup.dataset, Dataset)
        return ExactLoss.measure(
            setup.model,
            setup.dataset.val,
            setup.tokenizer,
            "validation split",
            corpus.source,
            is_altered=isinstance(corpus, PreparedData) and corpus.is_altered,
            threads=1 if setup.config.training.parallel == "fsdp" else setup.threads,
        )
