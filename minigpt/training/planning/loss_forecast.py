"""The forecast of a training run's validation loss, from how well a trigram model predicts its text.

The loss of a transformer depends on the text more than on anything else. Divided by the loss of a trigram model of the
same text, it is about the same for all texts of natural language and code. It then depends on the model's size and
on the number of characters that the model reads (`compute_loss_ratio`). Texts of another kind, such as
logs and tables, have a far lower ratio and a lower trigram loss. For them there is no forecast.

benchmarks/forecast.py trains models on several texts and fits the formula. It also fits the formula without each
text, and predicts the losses of that text. The range of the forecast is as wide as the errors of these predictions.
"""

from typing import TypeVar

import torch
from torch import Tensor

from minigpt.config import Config, ModelConfig
from minigpt.data.dataset import Dataset, Ids
from minigpt.model.ngram import NGramModel

MAX_COUNTED, MAX_PREDICTED = 200_000, 8_000  # tokens that the trigram model counts, and that it predicts
PARTS = 8  # these tokens come from eight places of each split
FITTED = {"A": 0.784, "a": 0.1, "B": 5.64, "b": 0.15}
LOSS_RANGE = 0.10  # 19 of 20 losses of texts that were left out of the fit are within 10% of the forecast

# The range of the training runs that the formula was fitted to. Outside it there is no forecast.
TRIGRAM_LOSSES = (1.7, 2.25)
MATRIX_WEIGHTS = (5_000, 4_000_000)
READ_CHARACTERS = (100_000, 5_000_000)
MIN_TOKENS = 100_000  # tokens of the training split
MAX_EPOCHS = 5
MAX_DROPOUT = 0.2
LEARNING_RATES = (3e-4, 3e-3)

Number = TypeVar("Number", float, Tensor)


def measure_trigram_loss(dataset: Dataset, vocab_size: int) -> float:
    """Fit a trigram model to parts of the training split; return its loss on parts of the validation split, in nats."""
    counted, predicted = _take_parts(dataset.train, MAX_COUNTED), _take_parts(dataset.val, MAX_PREDICTED)
    return float(NGramModel.fit(counted, vocab_size, order=3).token_losses(predicted).mean())


def _take_parts(ids: Ids, most: int) -> Tensor:
    """Return at most this number of ids, (N,), in parts of equal length from places that are evenly spread."""
    if len(ids) <= most:
        return torch.as_tensor(ids[:])
    starts = [part * len(ids) // PARTS for part in range(PARTS)]
    return torch.cat([torch.as_tensor(ids[start : start + most // PARTS]) for start in starts])


def count_matrix_weights(shape: ModelConfig) -> int:
    """Return the number of weights in matrices: twelve C x C in a block, the embedding table and the head."""
    return 12 * shape.n_layer * shape.n_embd**2 + 2 * shape.vocab_size * shape.n_embd


def compute_loss_ratio(N: Number, D: Number, fitted: dict[str, float]) -> Number:
    """Return a transformer's loss divided by the trigram model's, by the formula.

    Args:
        N: weights in matrices.
        D: characters read.
        fitted: the four numbers of the formula.
    """
    return fitted["A"] / N ** fitted["a"] + fitted["B"] / D ** fitted["b"]


def predict_loss(dataset: Dataset, config: Config) -> tuple[float, float] | None:
    """Return the range of the exact validation loss, or None outside the range of the fitted training runs."""
    shape, training = config.model, config.training
    weights, read = count_matrix_weights(shape), training.max_iters * config.tokens_per_step
    covered = (
        shape.architecture == "gpt"
        and training.optimizer == "adamw"
        and training.tokenizer == "char"
        and shape.dropout <= MAX_DROPOUT
        and LEARNING_RATES[0] <= training.learning_rate <= LEARNING_RATES[1]
        and MATRIX_WEIGHTS[0] <= weights <= MATRIX_WEIGHTS[1]
        and READ_CHARACTERS[0] <= read <= READ_CHARACTERS[1]
        and len(dataset.train) >= MIN_TOKENS
        and read <= MAX_EPOCHS * len(dataset.train)
    )
    if not covered:
        return None
    trigram_loss = measure_trigram_loss(dataset, shape.vocab_size)
    if not TRIGRAM_LOSSES[0] <= trigram_loss <= TRIGRAM_LOSSES[1]:
        return None
    loss = compute_loss_ratio(weights, read, FITTED) * trigram_loss
    return loss * (1 - LOSS_RANGE), loss * (1 + LOSS_RANGE)
