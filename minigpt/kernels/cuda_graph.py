"""One more token for a GPT in shapes that never change, so that a GPU can record the step once and play it again.

To start an operation takes the processor longer than the GPU needs for it where a model is small, and a step is some
dozens of them. A CUDA graph starts them all at once (Ng et al. 2020, "CUDA graphs"; gpt-fast does the same). So that
nothing but memory's content differs from step to step, the token and its position lie in tensors that stay where they
are, and attention looks at the whole cache, what is not written yet being masked.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.generation.cached import Cache
from minigpt.model.gpt import GPT

WARMING_UP = 3  # steps before the recording, in which libraries choose how to compute


def step(model: GPT, token: Tensor, position: Tensor, cache: Cache) -> Tensor:
    """Logits (B, V) after one more token (B, 1) at a position (1,), whose keys and values go into the cache.

    It is `read` of generation/cached.py for t = 1, but that nothing in it depends on a number of Python's.
    """
    places = model.position_embedding_table.weight[position]  # (1, C)
    x = (F.embedding(token, model.token_embedding_table.weight) + places).flatten(0, 1)  # (B, C)
    seen = torch.arange(model.config.block_size, device=token.device) <= position  # (T,)
    for block, (keys, values) in zip(model.blocks, cache.kv, strict=True):
        q, k, v = block.attention.heads(block.ln1(x), 1)  # (B, H, 1, D) each
        keys.index_copy_(2, position, k)
        values.index_copy_(2, position, v)
        x = x + block.attention.mix(F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[None, None, None]))
        x = x + block.ffwd(block.ln2(x))
    return model.head(x)


class RecordedStep:
    """That step, recorded as a CUDA graph, for one model and one cache on a GPU."""

    def __init__(self, model: GPT, cache: Cache) -> None:
        """Record it. Raises RuntimeError where that cannot be done."""
        device = model.ln_f.weight.device
        self.cache = cache
        self.token = torch.zeros(cache.batch_size, 1, dtype=torch.int64, device=device)
        self.position = torch.full((1,), cache.length, device=device)  # which the next step writes anyway
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARMING_UP):
                step(model, self.token, self.position, cache)
        torch.cuda.current_stream(device).wait_stream(beside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = step(model, self.token, self.position, cache)

    def __call__(self, token: Tensor) -> Tensor:
        """Logits (B, V) after one more token (B, 1) of each row."""
        self.token.copy_(token)
        self.position.fill_(self.cache.length)
        self.graph.replay()
        self.cache.length += 1
        return self.logits.clone()
