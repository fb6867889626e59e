"""The modern network without one of its ideas at a time, for benchmarks/record.py: what to change while it trains."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import Config
from minigpt.model.modern import Modern, angles, init_silent, rotate

IDENTITY = 1e9  # a cap that no logit comes near
Change = Callable[[Config], contextlib.AbstractContextManager[Config]]


def replaced(name: str, by: object) -> Change:
    """With another thing of that name in model/modern.py."""

    @contextlib.contextmanager
    def change(config: Config) -> Iterator[Config]:
        with patch(f"minigpt.model.modern.{name}", by):
            yield config

    return change


def settings(**other: Any) -> Change:
    """With other settings."""
    return lambda config: contextlib.nullcontext(config.override(**other))


def frozen(ending: str) -> Change:
    """With those weights as they begin."""
    whole = Modern.__init__

    def init(self: Modern, config: Any) -> None:
        whole(self, config)
        for name, parameter in self.named_parameters():
            if name.endswith(ending):
                parameter.requires_grad_(False)

    @contextlib.contextmanager
    def change(config: Config) -> Iterator[Config]:
        with patch.object(Modern, "__init__", init):
            yield config

    return change


def unturned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Positions that are not told to attention: only the causal mask tells them then."""
    return x


def drawn(model: Modern) -> None:
    """Small weights in the place of zeros."""
    init_silent(model)
    for parameter in model.parameters():
        if parameter.dim() == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)


def unnormed_heads(self: Any, x: Tensor, T: int, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """`Attention.heads` without QK-norm."""
    H, D = self.n_head, x.shape[1] // self.n_head
    q, k, v = (part(x).view(-1, T, H, D) for part in (self.query, self.key, self.value))
    q, k = (rotate(part, *angles(start, T, D, x)) for part in (q, k))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


IDEAS: dict[str, Change] = {
    "pairs": frozen("pair_embedding_table.weight"),
    "triples and quadruples": frozen("ple_embedding_table.weight"),
    "skips": frozen("shares"),
    "soft cap": replaced("CAP", IDENTITY),
    "QK-norm": replaced("Attention.heads", unnormed_heads),
    "rotary positions": replaced("rotate", unturned),
    "squared ReLU": replaced("squared_relu", F.relu),
    "RMS norm (layer norm instead)": replaced("rms_norm", lambda x: F.layer_norm(x, x.shape[-1:])),
    "zero initialisation": replaced("init_silent", drawn),
    "Muon (AdamW instead)": settings(optimizer="adamw"),
    "the trapezoid (cosine instead)": settings(schedule="cosine"),
}
