"""Replay: batches of the base's own text, mixed into fine-tuning so that the model does not forget it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.config import DataPath
from minigpt.data.dataset import Dataset
from minigpt.errors import DataError, FileError
from minigpt.model import LanguageModel
from minigpt.model.loss import MAX_EVALUATED_TOKENS, compute_exact_loss
from minigpt.runs.run import Run


class ReplayDataset:
    """The text that a base was trained on, in the token ids of the fine-tuned model.

    Args:
        dataset: the base's data, in its own ids.
        new_ids: what each id of the base is in the fine-tuned model, (V,), int64.
    """

    def __init__(self, dataset: Dataset, new_ids: Tensor) -> None:
        self.dataset, self.new_ids = dataset, new_ids

    @classmethod
    def from_run(
        cls, base: Run, old_ids: Sequence[int | None] | None = None, data: DataPath = None
    ) -> "ReplayDataset | None":
        """Read the text of a base.

        Args:
            base: the run that is fine-tuned.
            old_ids: what each token of the fine-tuned model is in the base, None for a new one. By default the
                vocabularies are the same.
            data: where the text is; None for the recorded place.

        Returns:
            The dataset, or None if the text is missing or has changed.
        """
        new_ids = torch.arange(base.tokenizer.vocab_size)
        for new, old in enumerate(old_ids or []):
            if old is not None:
                new_ids[old] = new
        try:
            return cls(base.dataset(data), new_ids)
        except (DataError, FileError):
            return None

    def get_batch(self) -> tuple[Tensor, Tensor]:
        """Return the next training batch: x and y, both (B, T), int64."""
        x, y = self.dataset.get_batch("train")
        return self.new_ids[x], self.new_ids[y]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, all tensors."""
        state = self.dataset.state_dict()
        return {**state, "position": torch.tensor([state["position"]])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as if all batches up to that state had been drawn."""
        self.dataset.load_state_dict({**state, "position": int(state["position"])})

    def compute_base_loss(self, base: LanguageModel) -> float:
        """Return the base's exact loss on the validation split, in nats per token."""
        return compute_exact_loss(base, self.dataset.val, MAX_EVALUATED_TOKENS)

    def compute_loss(self, model: LanguageModel) -> float:
        """Return the fine-tuned model's exact loss on the validation split, in nats per token."""
        return compute_exact_loss(model, self, MAX_EVALUATED_TOKENS)

    def __len__(self) -> int:
        return len(self.dataset.val)

    def __getitem__(self, stretch: slice) -> Any:
        return self.new_ids[torch.as_tensor(self.dataset.val[stretch])]
