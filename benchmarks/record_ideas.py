"""The modern network without one of its ideas at a time, for benchmarks/record.py: what to change while it trains."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import Config
from minigpt.model.elementwise import rms_norm
from minigpt.model.modern import Modern, init_silent

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


def unless_heads(x: Tensor) -> Tensor:
    """RMS norm of the stream, (N, C), and none of queries and keys, (B, T, H, D)."""
    return rms_norm(x) if x.dim() == 2 else x


IDEAS: dict[str, Change] = {
    "token shift": frozen("before"),
    "skips": frozen("shares"),
    "soft cap": replaced("CAP", IDENTITY),
    "QK-norm": replaced("rms_norm", unless_heads),
    "rotary positions": replaced("rotate", unturned),
    "squared ReLU": replaced("squared_relu", F.relu),
    "RMS norm (layer norm instead)": replaced("rms_norm", lambda x: F.layer_norm(x, x.shape[-1:])),
    "zero initialisation": replaced("init_silent", drawn),
    "Muon (AdamW instead)": settings(optimizer="adamw"),
    "the trapezoid (cosine instead)": settings(schedule="cosine"),
    "epochs (windows drawn at random instead)": settings(order="random"),
}
