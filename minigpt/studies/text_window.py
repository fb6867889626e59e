"""The part of a text that a model sees, as token ids."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from minigpt.model.language_model import get_device
from minigpt.runs.run import Run
from minigpt.tokenizers.base import Tokenizer

TextOrIds: TypeAlias = str | Sequence[int]  # a text, or its token ids


def encode_window(run: Run, text: TextOrIds) -> Tensor:
    """Return the last token ids of a text, at most block_size, on the model's device: (T,).

    An empty text becomes the start token, as for `Run.generate`.

    Raises:
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    ids = run.encode_prompt(text) if isinstance(text, str) else text
    return torch.tensor(ids[-run.model.config.block_size :], dtype=torch.int64, device=get_device(run.model))


def decode_tokens(tokenizer: Tokenizer, ids: Tensor) -> list[str]:
    """Return the text of each of some token ids (N,). A token that is only a part of a character becomes U+FFFD."""
    return [tokenizer.decode([i]) for i in ids.tolist()]
