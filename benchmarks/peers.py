"""Training steps of other projects: written here after their published code, or from an installed library.

Each `make_...` function takes a shape and the token ids of a text, and returns a function that makes one step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.model.lecture import GPTLanguageModel

Step = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """The shape of a model and its batch: batch, block_size, n_embd, n_head, n_layer, vocabulary."""

    B: int
    T: int
    C: int
    H: int
    L: int
    V: int = 65

    def __str__(self) -> str:
        return f"({self.B}, {self.T}, {self.C}, {self.H}, {self.L})"

    @property
    def model(self) -> ModelConfig:
        """The shape as minigpt's ModelConfig."""
        return ModelConfig(vocab_size=self.V, block_size=self.T, n_embd=self.C, n_head=self.H, n_layer=self.L)


LECTURE_SHAPE = Shape(16, 32, 64, 4, 4)  # the lecture preset's


def make_lecture_step(shape: Shape, ids: Tensor) -> Step:
    """Make a step of the lecture: windows stacked one by one, plain AdamW, one module for each head."""
    model = GPTLanguageModel(shape.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        ix = torch.randint(len(ids) - shape.T, (shape.B,))
        x = torch.stack([ids[i : i + shape.T] for i in ix])
        y = torch.stack([ids[i + 1 : i + shape.T + 1] for i in ix])
        _, loss = model(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


class NanoAttention(nn.Module):
    """nanoGPT's attention: one matrix for queries, keys and values, and PyTorch's fused attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.H
        self.c_attn = nn.Linear(shape.C, 3 * shape.C, bias=False)
        self.c_proj = nn.Linear(shape.C, shape.C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class NanoBlock(nn.Module):
    """nanoGPT's block: attention and a GELU network, each after a layer norm without bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(shape.C, bias=False), nn.LayerNorm(shape.C, bias=False)
        self.attn = NanoAttention(shape)
        self.mlp = nn.Sequential(
            nn.Linear(shape.C, 4 * shape.C, bias=False), nn.GELU(), nn.Linear(4 * shape.C, shape.C, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """nanoGPT's model, with the head tied to the token embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(shape.V, shape.C), nn.Embedding(shape.T, shape.C)
        self.h = nn.ModuleList(NanoBlock(shape) for _ in range(shape.L))
        self.ln_f = nn.LayerNorm(shape.C, bias=False)
        self.lm_head = nn.Linear(shape.C, shape.V, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = math.sqrt(2 * shape.L) if name.endswith("c_proj.weight") else 1
                nn.init.normal_(parameter, std=0.02 / scale)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def make_nanogpt_step(shape: Shape, ids: Tensor) -> Step:
    """Make a step of nanoGPT: batches from a NumPy array, weight decay of matrices only, clipping at 1."""
    data = ids.numpy().astype(np.uint16)
    model = NanoGPT(shape)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def step() -> None:
        ix = torch.randint(len(data) - shape.T, (shape.B,))
        x = torch.stack([torch.from_numpy(data[i : i + shape.T].astype(np.int64)) for i in ix])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + shape.T].astype(np.int64)) for i in ix])
        loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def make_transformers_step(shape: Shape, ids: Tensor) -> Step:
    """Make a step of transformers' GPT-2 in a plain loop, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.V, n_positions=shape.T, n_embd=shape.C, n_head=shape.H, n_layer=shape.L,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        ix = torch.randint(len(ids) - shape.T, (shape.B,))
        x = torch.stack([ids[i : i + shape.T] for i in ix])
        loss = model(input_ids=x, labels=x).loss  # it shifts the labels itself
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def make_matrix_products(shape: Shape) -> Step:
    """Make the matrix products of a step, forward and backward, by PyTorch, into allocated memory."""
    N, D = shape.B * shape.T, shape.C // shape.H
    layer = [(shape.C, 3 * shape.C), (shape.C, shape.C), (shape.C, 4 * shape.C), (4 * shape.C, shape.C)]
    products = [(N, i, o) for _ in range(shape.L) for i, o in layer] + [(N, shape.C, shape.V)]
    pairs: list[tuple[Callable, Tensor, Tensor, Tensor]] = []

    def product(multiply: Callable, a: Tensor, b: Tensor) -> None:
        pairs.append((multiply, a, b, multiply(a, b)))

    for n, i, o in products:
        x, w, g = torch.randn(n, i), torch.randn(o, i), torch.randn(n, o)
        product(torch.mm, x, w.T)  # forward
        product(torch.mm, g, w)  # the input's gradient
        product(torch.mm, g.T, x)  # the weight's
    for _ in range(shape.L):
        q, k, v, g = (torch.randn(shape.B * shape.H, shape.T, D) for _ in range(4))
        a = torch.randn(shape.B * shape.H, shape.T, shape.T)
        for x, y in ((q, k.mT), (a, v), (g, v.mT), (a.mT, g), (a, k), (a.mT, q)):
            product(torch.bmm, x, y)

    def step() -> None:
        for multiply, x, y, out in pairs:
            multiply(x, y, out=out)

    return step
