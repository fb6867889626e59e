"""Correct rewrites pass: einsum, loops, another order of operations, float64, other types of the same value."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt import learn
from minigpt.config import ModelConfig
from minigpt.errors import ConfigError
from minigpt.model.lecture import Block, FeedForward, GPTLanguageModel, Head, MultiHeadAttention


class EinsumHead(Head):
    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        q, k, v = self.query(x) / self.key.out_features**0.5, self.key(x), self.value(x)
        scores = torch.einsum("btd,bsd->bts", q, k)
        scores = scores + torch.full((T, T), float("-inf")).triu(1)
        return torch.einsum("bts,bsd->btd", self.dropout(scores.softmax(-1)), v)


class FusedHead(Head):
    def forward(self, x: Tensor) -> Tensor:
        dropout = self.dropout.p if self.training else 0.0
        q, k, v = self.query(x), self.key(x), self.value(x)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


class LoopHead(Head):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).double() for layer in (self.query, self.key, self.value))
        rows = []
        for t in range(x.shape[1]):
            scores = (q[:, t : t + 1] * k[:, : t + 1]).sum(-1) / q.shape[-1] ** 0.5
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            rows.append((self.dropout(weights)[..., None] * v[:, : t + 1]).sum(1))
        return torch.stack(rows, dim=1)


class SummedHeads(MultiHeadAttention):
    def forward(self, x: Tensor) -> Tensor:
        parts = self.proj.weight.split([head.value.out_features for head in self.heads], dim=1)
        out = sum((head(x) @ part.T for head, part in zip(self.heads, parts, strict=True)), self.proj.bias)
        return self.dropout(out)


class FunctionalFeedForward(FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        up, down = self.net[0], self.net[2]
        hidden = F.linear(x, up.weight, up.bias).clamp(min=0)
        return F.dropout(F.linear(hidden, down.weight, down.bias), self.net[3].p, self.training)


class HandNormBlock(Block):
    def forward(self, x: Tensor) -> Tensor:
        for norm, part in ((self.ln1, self.sa), (self.ln2, self.ffwd)):
            centered = x - x.mean(-1, keepdim=True)
            variance = centered.square().mean(-1, keepdim=True)
            x = part(centered / (variance + norm.eps).sqrt() * norm.weight + norm.bias) + x
        return x


class LoopGPT(GPTLanguageModel):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        x = F.embedding(idx, self.token_embedding_table.weight) + self.position_embedding_table.weight[: idx.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.ln_f(x) @ self.lm_head.weight.T + self.lm_head.bias
        loss = None if targets is None else F.cross_entropy(logits.transpose(1, 2), targets)
        return logits, loss


def loss_by_hand(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    if targets is None:
        return None
    total = torch.logsumexp(logits.double(), dim=2) - logits.double().gather(2, targets[:, :, None])[:, :, 0]
    return total.sum() / targets.numel()


def average_by_cumulative_sum(x: Tensor) -> Tensor:
    return x.double().cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]


def average_by_einsum(x: Tensor) -> Tensor:
    weights = torch.ones(x.shape[1], x.shape[1]).tril()
    return torch.einsum("ts,bsc->btc", weights / weights.sum(1, keepdim=True), x)


def batch_by_indices(data: Tensor, starts: Tensor, block_size: int) -> list[Tensor]:
    indices = starts[:, None] + torch.arange(block_size)
    return [data[indices].int(), data[indices + 1]]


def sample_by_search(logits: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = F.softmax(logits.double(), dim=-1).cumsum(dim=-1)
    found = torch.searchsorted(cumulative, uniforms[:, None], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def generate_by_list(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    rows = idx.tolist()
    for _ in range(max_new_tokens):
        context = torch.tensor([row[-model.config.block_size :] for row in rows])
        p = torch.softmax(model(context)[0][:, -1].double(), dim=-1)
        tokens = (p.cumsum(-1) < torch.rand(len(rows), 1, dtype=torch.float64)).sum(-1).clamp(max=p.shape[-1] - 1)
        rows = [[*row, token] for row, token in zip(rows, tokens.tolist(), strict=True)]
    return torch.tensor(rows)


def top_k_by_sort(logits: Tensor, k: int) -> Tensor:
    k = min(k, logits.shape[-1])
    threshold = logits.sort(dim=-1, descending=True).values[:, k - 1 : k]
    return torch.where(logits >= threshold, logits, -torch.inf)


def top_p_by_loop(logits: Tensor, p: float) -> Tensor:
    result = torch.full(logits.shape, float("-inf"), dtype=torch.float64)
    for b, row in enumerate(logits.double().softmax(-1)):
        total = 0.0
        for i in row.argsort(descending=True).tolist():
            result[b, i] = logits[b, i]
            total += row[i].item()
            if total >= p:
                break
    return result


def estimate_by_tensor(model: Any, batches: Any) -> float:
    was_training = model.training
    model.train(False)
    with torch.inference_mode():
        losses = torch.stack([model(x, y)[1] for x, y in batches])
    model.train(was_training)
    return losses.double().mean().item()


def train_with_manual_zero(model: Any, optimizer: Any, x: Tensor, y: Tensor) -> float:
    for p in model.parameters():
        p.grad = None
    loss = model(x, y)[1]
    value = float(loss.detach())
    torch.autograd.backward(loss)
    optimizer.step()
    return value


def attend_by_bool_mask(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    T, S = q.shape[1], keys.shape[1]
    mask = torch.arange(S)[None] <= torch.arange(S - T, S)[:, None]
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)


def count_with_update(words: Any) -> dict:
    counts: Counter = Counter()
    for word, count in words.items():
        counts.update(dict.fromkeys(pairwise(word), 0))
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def merge_recursively(ids: tuple, pair: tuple, new: int) -> tuple:
    if len(ids) < 2:
        return ids
    if ids[:2] == pair:
        return (new, *merge_recursively(ids[2:], pair, new))
    return (ids[0], *merge_recursively(ids[1:], pair, new))


class MergedLoRA(nn.Module):
    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.alpha, self.rank = alpha, rank
        self.A = nn.Parameter(torch.randn(rank, base.in_features) * 0.01)
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.base.weight + self.B @ self.A * (self.alpha / self.rank), self.base.bias)


def quantize_by_buckets(tensor: Tensor) -> tuple[Tensor, Tensor]:
    from minigpt.model.nf4 import quantize_to_levels

    return quantize_to_levels(tensor, 4)


def dequantize_by_loop(numbers: Tensor, absmax: Tensor, shape: Any) -> Tensor:
    from minigpt.model.nf4 import NF4_LEVELS

    rows = [[NF4_LEVELS[i] * a for i in row] for row, a in zip(numbers.tolist(), absmax.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64).flatten()[: int(np.prod(shape))].reshape(shape)


REWRITES: dict[str, tuple[int, dict[str, Any]]] = {
    "encode by map": (1, {"encode": lambda text, stoi: list(map(stoi.__getitem__, text))}),
    "batches by indices, int32": (2, {"get_batch": batch_by_indices}),
    "logits by embedding": (3, {"look_up_logits": lambda table, idx: F.embedding(idx, table)}),
    "loss by logsumexp, float64": (3, {"compute_next_token_loss": loss_by_hand}),
    "step with manual zero": (4, {"train_step": train_with_manual_zero}),
    "sample by binary search": (5, {"sample_token": sample_by_search}),
    "average by cumulative sum, float64": (6, {"average_by_loop": average_by_cumulative_sum}),
    "average by einsum": (6, {"average_by_matrix": average_by_einsum}),
    "head by einsum": (7, {"Head": EinsumHead}),
    "head by fused attention": (7, {"Head": FusedHead}),
    "head by loops, float64": (7, {"Head": LoopHead}),
    "scale both": (8, {"compute_scaled_scores": lambda q, k: (q / q.shape[-1] ** 0.25) @ (k / k.shape[-1] ** 0.25).mT}),
    "sharpness as a number": (8, {"measure_sharpness": lambda s: s.softmax(-1).max(-1).values.mean().item()}),
    "projection head by head": (9, {"MultiHeadAttention": SummedHeads}),
    "feed-forward by functions": (10, {"FeedForward": FunctionalFeedForward}),
    "layer norm by hand": (11, {"Block": HandNormBlock}),
    "embeddings by functions": (12, {"embed": lambda idx, a, b: F.embedding(idx, a) + b[: idx.shape[1]].unsqueeze(0)}),
    "gpt by loops": (13, {"GPTLanguageModel": LoopGPT}),
    "generate with lists": (14, {"append_sampled_tokens": generate_by_list}),
    "top-k by sort": (15, {"keep_top_k": top_k_by_sort}),
    "top-p by loop, float64": (15, {"keep_top_p": top_p_by_loop}),
    "estimate by tensors": (16, {"estimate_loss": estimate_by_tensor}),
    "cache by a mask of bools": (17, {"attend_to_cache": attend_by_bool_mask}),
    "counts by zip": (18, {"count_pairs": count_with_update}),
    "merge by recursion": (18, {"merge_pair": merge_recursively}),
    "lora by one matrix": (20, {"LoRALinear": MergedLoRA}),
    "nf4 by buckets, uint8": (21, {"quantize": quantize_by_buckets, "dequantize": dequantize_by_loop}),
}


@pytest.mark.parametrize("name", REWRITES)
def test_a_correct_rewrite_passes(name: str) -> None:
    number, written = REWRITES[name]
    verdict = learn.check(number, **written)
    assert verdict, str(verdict)


def test_a_mistake_is_named_in_a_notebook() -> None:
    def encode(text: str, stoi: dict) -> list:
        return [stoi[c] + 1 for c in text]

    def build(text: str) -> Any:
        characters = list(dict.fromkeys(text))
        return {c: i for i, c in enumerate(characters)}, dict(enumerate(characters))

    verdict = learn.check(1, build)
    assert not verdict
    assert repr(verdict) == "This is what comes out when the characters are not sorted."
    different = learn.check(1, encode=encode)
    assert str(different).splitlines()[0] == "The result differs for encode('ow', stoi)."
    assert str(different).splitlines()[1].split() == ["yours", "expected"]
    with pytest.raises(ConfigError, match=r"learn.check\(1, …\) takes build_vocabulary, encode, decode"):
        learn.check(1)


def test_an_error_in_a_class_shows_its_line() -> None:
    class Broken(Head):
        def forward(self, x: Tensor) -> Tensor:
            return self.no_such_layer(x)

    verdict = learn.check(7, Broken)
    assert verdict.message.startswith("AttributeError in Head, n_embd 2, n_head 1, x of shape (1, 1, 2): ")
    assert verdict.line.endswith(": return self.no_such_layer(x)")


def test_other_names_of_layers_are_named() -> None:
    class Renamed(nn.Module):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__()
            self.layers = nn.Linear(config.n_embd, config.n_embd)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    message = learn.check(10, Renamed).message
    assert message.startswith("Renamed must have the layers that the text names, so that weights can be loaded.")
    assert "It lacks net.0.bias, net.0.weight, net.2.bias, net.2.weight." in message
    assert "The exercise does not know layers.bias, layers.weight." in message


def test_checks_leave_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learn.check(7, FusedHead)
    assert torch.equal(torch.rand(3), expected)
