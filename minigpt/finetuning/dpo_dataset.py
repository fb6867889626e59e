"""Preferences: of two answers to a question one is better, and the model learns to tell (DPO, Rafailov et al. 2023).

The usual way is to train a second model to judge answers, and then this one to please it. DPO needs neither: how much
likelier an answer has become than it was to the model at first, the reference, is its reward already,

    reward(answer) = beta * (log p(answer) - log p_reference(answer)),

and the loss is that of guessing by the two rewards which one was chosen, -log sigmoid(reward(chosen) -
reward(rejected)). A small beta lets the model go far from the reference, a large one holds it there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import Config
from minigpt.data.shards import Split
from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.length_bucketing import LikeLengths
from minigpt.finetuning.sft_dataset import Encoded, Example, conversation, encoded, json_lines, padded
from minigpt.model import LanguageModel, TrainedModel
from minigpt.model.loss import IGNORE_INDEX
from minigpt.tokenizers.chat_format import ChatTemplate

BETA = 0.1
AT_ONCE = 64  # pairs


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float = BETA
) -> Tensor:
    """The loss of each pair, from the four log-probabilities of its answers, in nats, all (B,)."""
    return -F.logsigmoid(margins(chosen, rejected, reference_chosen, reference_rejected, beta))


def margins(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float = BETA
) -> Tensor:
    """By how much the chosen answer's reward is above the other's, likewise."""
    return beta * ((chosen - reference_chosen) - (rejected - reference_rejected))


def log_probabilities(logits: Tensor, y: Tensor) -> Tensor:
    """That of each row's answer, y (B, T) where it counts, in nats, by logits (B, T, V): (B,)."""
    losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
    return -losses.view(y.shape).sum(1)


@dataclass(frozen=True)
class Pair:
    """Two answers to the same."""

    chosen: Example
    rejected: Example


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a file of JSON lines: prompt, chosen and rejected, each text or messages, as trl has them.

    Raises FileError or DataError, with file, line and reason, for the first line that is none.
    """
    return [pair_of(content, where) for where, content in json_lines(path, "pairs")]


def pair_of(content: Any, where: str) -> Pair:
    """The pair that a line holds; DataError, with the place, if it holds none."""
    names = ("prompt", "chosen", "rejected")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str | list) for name in names):
        raise DataError(f"{where}: a pair needs prompt, chosen and rejected, each text or messages")
    prompt = messages(content["prompt"], "user")
    pair = Pair(*(conversation(prompt + messages(content[name], "assistant"), where) for name in names[1:]))
    if pair.chosen == pair.rejected:
        raise DataError(f"{where}: chosen and rejected are the same, so there is nothing to prefer: leave it out")
    if pair.chosen.prompt != pair.rejected.prompt:
        raise DataError(f"{where}: chosen and rejected must be one answer each, to the same prompt")
    return pair


def messages(said: str | list[Any], role: str) -> list[Any]:
    """Text as a message of that role; messages as they are."""
    return [{"role": role, "content": said}] if isinstance(said, str) else said


class Pairs:
    """Encoded pairs in batches of like length: the rows of the chosen answers, and below them those of the rejected.

    Attributes:
        truncated: how many answers' conversations were longer than the model sees, and begin later than they did.
        position: how many pairs have been drawn.
    """

    def __init__(self, train: Sequence[Pair], val: Sequence[Pair], template: ChatTemplate, config: Config) -> None:
        """Raises DataError for no pairs, or an answer that alone is longer than block_size."""
        self.truncated = self.position = self.skipped = 0
        self.batch_size = config.training.batch_size
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.parts: dict[Split, list[tuple[Encoded, Encoded]]] = {"train": [], "val": []}
        for split, pairs in (("train", train), ("val", val)):
            for pair in pairs:
                both = [encoded(example, template, config.model.block_size) for example in (pair.chosen, pair.rejected)]
                self.truncated += sum(each.truncated for each in both)
                self.parts[split].append((both[0], both[1]))  # type: ignore[index]
        lengths = [max(len(each.x) for each in pair) for pair in self.parts["train"]]
        self.batches = LikeLengths(lengths, self.batch_size, self.generator)

    def get_batch(self, split: Split) -> tuple[Tensor, Tensor]:
        """The next batch: x and y, both (2B, T). Each training pair comes once an epoch."""
        part = self.parts[split]
        if split == "val":
            return stacked([part[i] for i in torch.randint(len(part), (self.batch_size,), generator=self.generator)])
        chosen = next(self.batches)
        self.position += len(chosen)
        if self.position == self.skipped:
            return self.get_batch(split)
        return stacked([part[i] for i in chosen])

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: the states of the generator and of the epoch, and the position."""
        return {"generator": self.generator.get_state(), "position": self.position, **self.batches.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.batches.restore(state)
        self.generator.set_state(state["generator"])
        self.position = state["position"]

    @property
    def tokens(self) -> int:
        """How many there are, in both splits."""
        return sum(len(each.x) for part in self.parts.values() for pair in part for each in pair)

    @property
    def tokens_a_batch(self) -> float:
        """How many a batch has, on average."""
        return self.batch_size * self.tokens / sum(map(len, self.parts.values()))

    def sample(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """At most `count` pairs, evenly spread: x and y, (2N, T)."""
        part = self.parts[split]
        return stacked(part[:: math.ceil(len(part) / count)])


def stacked(pairs: Sequence[tuple[Encoded, Encoded]]) -> tuple[Tensor, Tensor]:
    """Pairs as x and y, (2B, T): first the chosen, then the rejected."""
    return padded([chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs])


class Preferring(nn.Module):
    """A model, and the reference that it is held against, whose loss is that of its preferences."""

    def __init__(self, model: TrainedModel, reference: TrainedModel, beta: float = BETA) -> None:
        """Raises ConfigError for a beta that isn't above 0."""
        super().__init__()
        if not 0 < beta < math.inf:
            raise ConfigError(f"beta must be a number above 0, not {beta!r}")
        self.model, self.beta = model, beta
        self.config = model.config
        self.reference = (reference,)  # in a tuple, so that PyTorch takes it for no part of this module

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What each pair's margin is, (B,), the chosen answer's reward less the other's, and the mean loss of all."""
        chosen, rejected = log_probabilities(self.model(idx)[0], targets).chunk(2)
        with torch.no_grad():
            was_chosen, was_rejected = log_probabilities(self.reference[0](idx)[0], targets).chunk(2)
        losses = dpo_loss(chosen, rejected, was_chosen, was_rejected, self.beta)
        return margins(chosen, rejected, was_chosen, was_rejected, self.beta), losses.mean()

    @property
    def blocks(self) -> nn.Module:
        """The model's, for what is applied to them from outside."""
        return self.model.get_submodule("blocks")

    @torch.inference_mode()
    def loss(self, x: Tensor, y: Tensor) -> float:
        """The mean loss of pairs x, y, (2N, T), dropout off."""
        was_training, device = self.training, next(self.model.parameters()).device
        self.eval()
        total = 0.0
        for (xc, xr), (yc, yr) in zip(in_parts(x), in_parts(y), strict=True):
            _, loss = self(torch.cat([xc, xr]).to(device), torch.cat([yc, yr]).to(device))
            total += loss.item() * len(xc)
        self.train(was_training)
        return total / (len(x) // 2)


def in_parts(rows: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows of pairs, (2N, T), some pairs at a time."""
    chosen, rejected = rows.chunk(2)
    return list(zip(chosen.split(AT_ONCE), rejected.split(AT_ONCE), strict=True))


@torch.inference_mode()
def preferred(model: LanguageModel, pairs: Pairs) -> int:
    """Of how many held-out pairs the chosen answer is the likelier one to the model."""
    x, y = pairs.sample("val", len(pairs.parts["val"]))
    device = next(iter(model.parameters())).device
    right = 0
    for (xc, xr), (yc, yr) in zip(in_parts(x), in_parts(y), strict=True):
        logits, _ = model(torch.cat([xc, xr]).to(device))
        chosen, rejected = log_probabilities(logits, torch.cat([yc, yr]).to(device)).chunk(2)
        right += int((chosen > rejected).sum())
    return right
