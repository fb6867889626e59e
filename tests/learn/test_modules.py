"""Modules with other layers than the exercise's: the message says what is wrong with them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from minigpt import learn
from minigpt.config import ModelConfig
from minigpt.model.lecture import Block, GPTLanguageModel, Head, MultiHeadAttention


def _make_attention(make_heads: Callable[[ModelConfig], object]) -> type[nn.Module]:
    """Return a MultiHeadAttention with other heads."""

    class Attention(MultiHeadAttention):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(config)
            del self.heads
            self.heads = make_heads(config)  # type: ignore[assignment]

    return Attention


@pytest.mark.parametrize(
    ("make_heads", "end"),
    [
        (lambda c: [Head(c) for _ in range(c.n_head)], " self.heads is a list, in which PyTorch sees no layers: use "
         "nn.ModuleList(...)."),
        (lambda c: nn.ModuleList([Head(c)] * c.n_head), " self.heads holds the same module several times: [a] * n does "
         "not make n of them."),
    ],
)  # fmt: skip
def test_heads_that_pytorch_does_not_see_are_explained(make_heads: Callable, end: str) -> None:
    message = learn.check(9, _make_attention(make_heads)).message
    assert "It lacks heads." in message
    assert message.endswith(end)


def test_the_modules_of_a_sequence_are_listed() -> None:
    class Swapped(nn.Module):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__()
            C = config.n_embd
            self.net = nn.Sequential(nn.Linear(C, 4 * C), nn.Linear(4 * C, C), nn.ReLU(), nn.Dropout(config.dropout))

    assert learn.check(10, Swapped).message.endswith(" self.net has Linear, Linear, ReLU, Dropout, numbered from 0.")


def test_layers_of_another_size_are_a_named_mistake() -> None:
    class FeedForward(nn.Module):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__()
            C = config.n_embd
            self.net = nn.Sequential(nn.Linear(C, C), nn.ReLU(), nn.Linear(C, C), nn.Dropout(config.dropout))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    assert learn.check(10, FeedForward).mistake == "the hidden layer is n_embd wide instead of four times as wide"


def test_a_module_list_that_is_called_is_not_an_empty_body() -> None:
    class Listed(GPTLanguageModel):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(config)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))  # type: ignore[assignment]

        def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, None]:
            return self.blocks(self.token_embedding_table(idx)), None

    verdict = learn.check(13, Listed)
    assert verdict.message.startswith("NotImplementedError in GPTLanguageModel")
    assert "use nn.Sequential, or loop over it" in verdict.detail


def test_dropout_with_another_share_is_seen() -> None:
    class Half(MultiHeadAttention):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(config)
            self.dropout = nn.Dropout()

    message = learn.check(9, Half).message
    assert message.startswith(
        "The result differs for MultiHeadAttention in training mode, dropout 0.9, the share of zeros"
    )


def test_a_model_without_its_config_is_refused() -> None:
    class Forgetful(GPTLanguageModel):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(config)
            del self.config

    assert learn.check(13, Forgetful).message.startswith("self.config is missing: self.config = config.")


def test_lora_needs_parameters_and_the_given_layer() -> None:
    class Plain(nn.Module):
        def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
            super().__init__()
            self.base, self.A, self.B = base, torch.zeros(rank, base.in_features), torch.zeros(base.out_features, rank)

    assert learn.check(20, Plain).message.startswith("self.A must be an nn.Parameter: ")
