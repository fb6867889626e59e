"""The text that a base was trained on: to rehearse it, and to see what of it is forgotten."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.data.dataset import Dataset
from minigpt.errors import DataError, FileError
from minigpt.model import LanguageModel
from minigpt.model.loss import MAX_EVALUATED_TOKENS, compute_exact_loss
from minigpt.runs.run import Run


class OwnText:
    """A base's own text, in the ids of what the base becomes."""

    def __init__(self, dataset: Dataset, new: Tensor) -> None:
        """`new` gives what each id of the base, (V,), is now."""
        self.dataset, self.new = dataset, new

    @classmethod
    def of(cls, base: Run, old: Sequence[int | None] | None = None) -> "OwnText | None":
        """That of a run, `old` being what each token was in it, by default the same; None where it can't be had."""
        new = torch.arange(base.tokenizer.vocab_size)
        for n, i in enumerate(old or []):
            if i is not None:
                new[i] = n
        try:
            return cls(base.dataset(), new)
        except (DataError, FileError):
            return None

    def batch(self) -> tuple[Tensor, Tensor]:
        """One to train on: x and y, (B, T)."""
        x, y = self.dataset.get_batch("train")
        return self.new[x], self.new[y]

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, all tensors."""
        state = self.dataset.state()
        return {**state, "position": torch.tensor([state["position"]])}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.dataset.restore({**state, "position": int(state["position"])})

    def loss_before(self, base: LanguageModel) -> float:
        """The base's exact loss on the validation split."""
        return compute_exact_loss(base, self.dataset.val, MAX_EVALUATED_TOKENS)

    def loss(self, model: LanguageModel) -> float:
        """The exact loss of what the base has become, on the same."""
        return compute_exact_loss(model, self, MAX_EVALUATED_TOKENS)

    def __len__(self) -> int:
        return len(self.dataset.val)

    def __getitem__(self, stretch: slice) -> Any:
        """A stretch of the validation split."""
        return self.new[torch.as_tensor(self.dataset.val[stretch])]
