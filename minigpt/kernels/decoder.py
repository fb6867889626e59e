"""What a decoder is: it continues a text faster than the model's own forward."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn

from minigpt.config import SamplingConfig


class Sampler(Protocol):
    """What a decoder asks of a sampler."""

    @property
    def config(self) -> SamplingConfig:
        """The temperature, top-k and top-p."""

    def draw_uniforms(self, count: int) -> Tensor:
        """Draw random numbers in [0, 1): (count,), float64."""

    def choose(self, logits: Tensor) -> Tensor:
        """Choose the next token of each row by its logits (B, V): (B,)."""


class Decoder(Protocol):
    """What continues a text faster than the model's own forward."""

    def stream(self, token: Tensor, count: int, sampler: Sampler) -> Iterator[Tensor]:
        """Yield at most `count` tokens (B,) that follow `token` (B,)."""


class Loops(NamedTuple):
    """The compiled loops that continue a text. Each combination compiles what it needs."""

    parts: int  # of each layer
    kind: Literal["row", "rows", "modern"]  # one text of a GPT, several, or those of a Modern
    window: bool  # whether the loops continue past block_size


def count_weights(model: nn.Module) -> int:
    """Count the numbers in a model's parameters and buffers, quantized ones included."""
    return sum(tensor.numel() for tensor in model.state_dict().values())
