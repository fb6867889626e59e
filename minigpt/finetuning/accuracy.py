"""How many answers are right, letter for letter, and how sure that is."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from minigpt.config import SamplingConfig
from minigpt.finetuning.sft_dataset import Example
from minigpt.generation.engine import STOPPED, generate
from minigpt.model import LanguageModel
from minigpt.tokenizers.chat_format import ChatTemplate

AT_ONCE = 64  # prompts
Z = 1.96  # standard deviations of a 95% interval


@dataclass(frozen=True)
class Accuracy:
    """So many of so many answers were right."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Of all answers."""
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with 95% certainty (Wilson 1927)."""
        n, p = self.asked, self.share
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"


def answers(model: LanguageModel, template: ChatTemplate, examples: Sequence[Example], longest: int) -> list[str]:
    """What the model answers to each example's prompt, the likeliest token at each step, at most so many."""
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for n, example in enumerate(examples):
        ids = template.encode_prompt(example.prompt)
        by_length[len(ids)].append((n, ids))
    found = [""] * len(examples)
    config = SamplingConfig(max_new_tokens=longest, temperature=0)
    device = next(iter(model.parameters())).device
    for alike in by_length.values():
        for start in range(0, len(alike), AT_ONCE):
            some = alike[start : start + AT_ONCE]
            rows = generate(model, torch.tensor([ids for _, ids in some], device=device), config, stop=[template.end])
            for (n, _), row in zip(some, rows.tolist(), strict=True):
                found[n] = template.tokenizer.decode(i for i in row if i != STOPPED)
    return found


def accuracy(model: LanguageModel, template: ChatTemplate, examples: Sequence[Example]) -> Accuracy:
    """How many of the answers are exactly the examples'."""
    longest = max(len(template.tokenizer.encode(example.answer)) for example in examples) + 1
    given = answers(model, template, examples, longest)
    return Accuracy(sum(a == example.answer for a, example in zip(given, examples, strict=True)), len(examples))


def accuracies(
    model: LanguageModel, template: ChatTemplate, test: Mapping[str, Sequence[Example]]
) -> dict[str, Accuracy]:
    """The same by task."""
    return {task: accuracy(model, template, examples) for task, examples in test.items()}


def majority(train: Sequence[Example], test: Sequence[Example]) -> Accuracy:
    """How many would be right if the most frequent answer of the training examples were always given."""
    ((usual, _),) = Counter(example.answer for example in train).most_common(1)
    return Accuracy(sum(example.answer == usual for example in test), len(test))
