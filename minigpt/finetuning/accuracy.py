"""Accuracy: how many answers are right letter for letter, with a confidence interval."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from minigpt.config import SamplingConfig
from minigpt.finetuning.examples import Example
from minigpt.generation.engine import STOPPED, generate
from minigpt.model import LanguageModel
from minigpt.model.language_model import get_device
from minigpt.tokenizers.chat_format import ChatTemplate

PROMPTS_PER_BATCH = 64
Z = 1.96  # standard deviations of a 95% interval


@dataclass(frozen=True)
class Accuracy:
    """A number of right answers.

    Attributes:
        correct: answers that are right.
        total: all answers.
    """

    correct: int
    total: int

    @property
    def share(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the share (Wilson 1927)."""
        n, p = self.total, self.share
        center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half_width = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, center - half_width), min(1.0, center + half_width)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"


def _generate_answers(
    model: LanguageModel, template: ChatTemplate, examples: Sequence[Example], max_new_tokens: int
) -> list[str]:
    """Return the model's answer to the prompt of each example, by greedy decoding."""
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for n, example in enumerate(examples):
        ids = template.encode_prompt(example.prompt)
        by_length[len(ids)].append((n, ids))
    answers = [""] * len(examples)
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0)
    device = get_device(model)
    for prompts in by_length.values():  # prompts of one length make a batch without padding
        for start in range(0, len(prompts), PROMPTS_PER_BATCH):
            batch = prompts[start : start + PROMPTS_PER_BATCH]
            idx = torch.tensor([ids for _, ids in batch], device=device)  # (B, T)
            rows = generate(model, idx, config, stop=[template.end])
            for (n, _), row in zip(batch, rows.tolist(), strict=True):
                answers[n] = template.tokenizer.decode(i for i in row if i != STOPPED)
    return answers


def measure_accuracy(model: LanguageModel, template: ChatTemplate, examples: Sequence[Example]) -> Accuracy:
    """Count the model's answers that are exactly those of the examples."""
    longest = max(len(template.tokenizer.encode(example.answer)) for example in examples)
    answers = _generate_answers(model, template, examples, longest + 1)
    correct = sum(answer == example.answer for answer, example in zip(answers, examples, strict=True))
    return Accuracy(correct, len(examples))


def measure_accuracy_by_task(
    model: LanguageModel, template: ChatTemplate, examples: Mapping[str, Sequence[Example]]
) -> dict[str, Accuracy]:
    """Return `measure_accuracy` of each task's examples."""
    return {task: measure_accuracy(model, template, each) for task, each in examples.items()}


def compute_majority_baseline(train: Sequence[Example], test: Sequence[Example]) -> Accuracy:
    """Return the accuracy of always giving the most frequent answer of the training examples."""
    ((answer, _),) = Counter(example.answer for example in train).most_common(1)
    return Accuracy(sum(example.answer == answer for example in test), len(test))
