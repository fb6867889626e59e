"""Exercise 13: the whole GPT."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import (
    MODULE_IMPORTS,
    make_config,
    make_module_case,
    randint,
)
from minigpt.learn.outcomes import require
from minigpt.model.lecture import GPTLanguageModel, compute_next_token_loss

TEXT = """
All parts together are a GPT:

    idx (B, T) ─ token embedding + position embedding ─ (B, T, C)
               ─ n_layer blocks ─ ln_f, a last layer norm ─ lm_head, a linear layer ─ logits (B, T, V)

`forward` returns two things: the logits, and the loss of exercise 3. Without targets the loss is None.

Write `__init__` and `forward`. The check loads weights by these names:
    self.config                    the configuration
    self.token_embedding_table     nn.Embedding(config.vocab_size, config.n_embd)
    self.position_embedding_table  nn.Embedding(config.block_size, config.n_embd)
    self.blocks                    nn.Sequential of config.n_layer times Block(config)
    self.ln_f                      nn.LayerNorm(config.n_embd)
    self.lm_head                   nn.Linear from n_embd to vocab_size
The last line of `__init__` is self.apply(init_weights). It draws small weights for all layers, so that the first loss
is close to ln V.
"""

EXPERIMENT = """
import math

torch.manual_seed(0)
config = ModelConfig(vocab_size=65, n_embd=64, n_head=4, n_layer=4, block_size=32)
model = GPTLanguageModel(config)
idx = torch.randint(65, (4, 32))
logits, loss = model(idx, torch.randint(65, (4, 32)))
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, logits {tuple(logits.shape)}")
print(f"loss before training {loss.item():.3f}, ln 65 = {math.log(65):.3f}")
"""


class _WrongGPT(GPTLanguageModel):
    """A GPT whose steps can be exchanged one by one."""

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.finish(self.blocks(self.start(idx))))
        return logits, self.compute_loss(logits, targets)

    def start(self, idx: Tensor) -> Tensor:
        """Return the embeddings."""
        return self.token_embedding_table(idx) + self.position_embedding_table(torch.arange(idx.shape[1]))

    def finish(self, x: Tensor) -> Tensor:
        """Return what the head reads."""
        return self.ln_f(x)

    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        """Return the loss."""
        return compute_next_token_loss(logits, targets)


class _NoFinalNorm(_WrongGPT):
    def finish(self, x: Tensor) -> Tensor:
        return x


class _NoPositions(_WrongGPT):
    def start(self, idx: Tensor) -> Tensor:
        return self.token_embedding_table(idx)


class _NoBlocks(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.ln_f(self.start(idx)))
        return logits, self.compute_loss(logits, targets)


class _FirstBlockOnly(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.ln_f(self.blocks[0](self.start(idx))))
        return logits, self.compute_loss(logits, targets)


class _Probabilities(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, _ = super().forward(idx)
        probabilities = F.softmax(logits, dim=-1)
        return probabilities, self.compute_loss(probabilities, targets)


class _LastPosition(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return logits[:, -1, :], loss


class _MixedOrder(_WrongGPT):
    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        return None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.T.flatten())


class _ShiftedAgain(_WrongGPT):
    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        if targets is None:
            return None
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


class _LossOnly(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return logits if targets is None else loss


class _LogitsOnly(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return logits if targets is None else (logits, loss)


class _FlatLogits(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits, loss = super().forward(idx, targets)
        return (logits if targets is None else logits.flatten(0, 1)), loss


def _make_gpt_inputs(B: int, T: int, has_targets: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that makes ids, and targets."""

    def make_inputs() -> tuple[Tensor, ...]:
        idx, targets = randint(7, B, T, seed=T), randint(7, B, T, seed=T + 1)
        return (idx, targets) if has_targets else (idx,)

    return make_inputs


class _TokensAsPositions(_WrongGPT):
    def start(self, idx: Tensor) -> Tensor:
        return self.token_embedding_table(idx) + self.position_embedding_table(idx)


class _AllPositions(_WrongGPT):
    def start(self, idx: Tensor) -> Tensor:
        return self.token_embedding_table(idx) + self.position_embedding_table(torch.arange(self.config.block_size))


class _NormFirst(_WrongGPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        logits = self.lm_head(self.blocks(self.ln_f(self.start(idx))))
        return logits, self.compute_loss(logits, targets)


class _LastLoss(_WrongGPT):
    def compute_loss(self, logits: Tensor, targets: Tensor | None) -> Any:
        return compute_next_token_loss(logits[:, -1:], None if targets is None else targets[:, -1:])


class _OwnStart(GPTLanguageModel):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.reset_parameters()


def _describe_start(my: Any) -> dict[str, Any]:
    """Return what must hold for a new model, whatever the order in which its layers were made."""
    config = make_config(16, 2)
    model = my.GPTLanguageModel(config)
    require(
        getattr(model, "config", None) == config,
        "self.config is missing: self.config = config. Exercise 14 reads model.config.block_size.",
    )
    spreads = [p.std().item() for p in model.parameters() if p.dim() == 2]
    return {"all weights are small, as init_weights draws them": max(spreads) < 0.05}


EXERCISE = Exercise(
    text=TEXT,
    imports=MODULE_IMPORTS + "from minigpt.model.lecture import init_weights\n",
    parts=("Block", "compute_next_token_loss"),
    references=(GPTLanguageModel,),
    dropped=("GPTLanguageModel.generate",),
    cases=(
        *(
            make_module_case(
                GPTLanguageModel,
                make_config(C, H, n_layer=n_layer),
                _make_gpt_inputs(B, T, has_targets),
                f"n_layer {n_layer}, idx of shape ({B}, {T}){', with targets' if has_targets else ''}",
            )
            for C, H, n_layer, B, T, has_targets in (
                (2, 1, 1, 1, 1, False),
                (4, 2, 2, 1, 3, False),
                (4, 2, 2, 2, 3, True),
                (9, 3, 2, 3, 8, True),
            )
        ),
        Case("a new GPTLanguageModel", _describe_start),
    ),
    mistakes=tuple(
        Mistake(when, {"GPTLanguageModel": variant})
        for when, variant in (
            ("the last layer norm, ln_f, is not used", _NoFinalNorm),
            ("the positions are not added", _NoPositions),
            ("the blocks are not used", _NoBlocks),
            ("only the first block is used", _FirstBlockOnly),
            ("probabilities are returned instead of logits: the softmax belongs to the loss", _Probabilities),
            ("only the logits of the last position are returned", _LastPosition),
            (
                "logits and targets are flattened in different orders, so that predictions meet the wrong targets",
                _MixedOrder,
            ),
            ("the targets are shifted again, but y is already shifted", _ShiftedAgain),
            ("only the loss is returned when there are targets, instead of logits and loss", _LossOnly),
            ("only the logits are returned without targets, instead of logits and None", _LogitsOnly),
            ("the rows of the position table are chosen by the token ids: use torch.arange(T)", _TokensAsPositions),
            ("the positions go up to block_size instead of T: use torch.arange(T)", _AllPositions),
            ("ln_f comes before the blocks instead of after them", _NormFirst),
            ("the loss is that of the last position alone", _LastLoss),
            (
                "the weights are not those of init_weights: self.apply(init_weights) must be the last line of __init__",
                _OwnStart,
            ),
            ("the logits are returned as (B * T, V) instead of (B, T, V)", _FlatLogits),
        )
    ),
    hints=(
        "nn.Sequential(*[Block(config) for _ in range(config.n_layer)]): the star unpacks the list. forward follows "
        "the picture from left to right. Each step is one line: x = ...",
        "The positions: self.position_embedding_table(torch.arange(T, device=idx.device)), with T = idx.shape[1].",
        "After the blocks: x = self.ln_f(x), logits = self.lm_head(x), return logits, "
        "compute_next_token_loss(logits, targets).",
    ),
    experiment=EXPERIMENT,
)
