"""DPO: learn from pairs of answers which one is better (Rafailov et al. 2023).

Earlier methods train a second model to score answers, and then train the first model for high scores. DPO needs no
second model. The reward of an answer is how much likelier it has become than it was to the reference, a frozen copy of
the model before training:

    reward(answer) = beta * (log p(answer) - log p_reference(answer))

The loss is that of guessing from the two rewards which answer was chosen: -log sigmoid(reward(chosen) -
reward(rejected)). A small beta lets the model move far from the reference; a large one holds it close.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.errors import ConfigError
from minigpt.model import LanguageModel, TrainedModel
from minigpt.model.language_model import evaluation_mode, get_device
from minigpt.model.loss import IGNORE_INDEX

DEFAULT_BETA = 0.1
PAIRS_PER_BATCH = 64  # in a batch of an evaluation


def compute_dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float = DEFAULT_BETA
) -> Tensor:
    """Return the loss of each pair, (B,), from the log-probabilities of its answers, in nats, each (B,)."""
    return -F.logsigmoid(_compute_margins(chosen, rejected, reference_chosen, reference_rejected, beta))


def _compute_margins(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float = DEFAULT_BETA
) -> Tensor:
    """Return the reward of each chosen answer minus that of the rejected one, (B,), from log-probabilities, (B,)."""
    return beta * ((chosen - reference_chosen) - (rejected - reference_rejected))


def compute_log_probabilities(logits: Tensor, y: Tensor) -> Tensor:
    """Return the log-probability of each row's answer.

    Args:
        logits: (B, T, V).
        y: the targets, (B, T); IGNORE_INDEX where they are not part of the answer.

    Returns:
        The sum over the answer's tokens, (B,), in nats.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
    return -losses.view(y.shape).sum(1)


class DPOModel(nn.Module):
    """A model and its frozen reference; the loss is DPO's.

    Attributes:
        model: the model that trains.
        config: its config.
    """

    def __init__(self, model: TrainedModel, reference: TrainedModel, beta: float = DEFAULT_BETA) -> None:
        """Take a model and a reference on the same device. Raise ConfigError for a beta that is not above 0."""
        super().__init__()
        if not 0 < beta < math.inf:
            raise ConfigError(f"beta must be a number above 0, not {beta!r}")
        self.model, self.beta = model, beta
        self.config = model.config
        self._reference = (reference,)  # in a tuple, so that it is no submodule: it has no gradients and is not saved

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of pairs.

        Args:
            idx: token ids, (2B, T): the chosen answers' conversations, then the rejected ones'.
            targets: their targets, (2B, T); IGNORE_INDEX outside the answers.

        Returns:
            The margin of each pair, (B,), and the mean loss, ().
        """
        chosen, rejected = compute_log_probabilities(self.model(idx)[0], targets).chunk(2)
        with torch.no_grad():
            reference_logits, _ = self._reference[0](idx)
            reference_chosen, reference_rejected = compute_log_probabilities(reference_logits, targets).chunk(2)
        log_probabilities = chosen, rejected, reference_chosen, reference_rejected
        loss = compute_dpo_loss(*log_probabilities, beta=self.beta).mean()
        return _compute_margins(*log_probabilities, beta=self.beta), loss

    @property
    def blocks(self) -> nn.Module:
        """The blocks of the model that trains, for what is applied to them from outside."""
        return self.model.get_submodule("blocks")

    @torch.inference_mode()
    def compute_mean_loss(self, x: Tensor, y: Tensor) -> float:
        """Return the mean loss of pairs x and y, (2N, T), in nats, with dropout off."""
        device, total = get_device(self), 0.0
        with evaluation_mode(self):
            for idx, targets in _split_pairs(x, y):
                _, loss = self(idx.to(device), targets.to(device))
                total += loss.item() * (len(idx) // 2)
        return total / (len(x) // 2)


@torch.inference_mode()
def count_preferred(model: LanguageModel, x: Tensor, y: Tensor) -> int:
    """Return in how many of the pairs x and y, (2N, T), the chosen answer is the likelier one to the model."""
    device, count = get_device(model), 0
    for idx, targets in _split_pairs(x, y):
        logits, _ = model(idx.to(device))
        chosen, rejected = compute_log_probabilities(logits, targets.to(device)).chunk(2)
        count += int((chosen > rejected).sum())
    return count


def _split_pairs(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split pairs, (2N, T), into batches of pairs, each (2B, T)."""
    parts = [part.split(PAIRS_PER_BATCH) for rows in (x, y) for part in rows.chunk(2)]
    return [
        (torch.cat([x_chosen, x_rejected]), torch.cat([y_chosen, y_rejected]))
        for x_chosen, x_rejected, y_chosen, y_rejected in zip(*parts, strict=True)
    ]
