"""Exercise 12: the embeddings of tokens and positions."""

import torch
from torch import Tensor

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randint, randn

TEXT = """
Attention is blind to order: if two earlier positions change places, the weighted mean stays the same. So each position
gets a vector of its own. It is learned, like the vector of the token, and both are added.

    idx           7   3   7          (B, T)
    token table   e7  e3  e7         row idx of a table (V, C)
    positions     p0  p1  p2         rows 0 to T - 1 of a table (block_size, C)
    sum           e7+p0  e3+p1  e7+p2        (B, T, C)

Now the token 7 has two different vectors. All rows of the batch have the same positions. T may be smaller than
block_size, so only the first T rows of the position table are used.
"""

EXPERIMENT = """
torch.manual_seed(0)
tokens, positions = torch.randn(10, 4), torch.randn(8, 4)
idx = torch.tensor([[7, 3, 7]])
x = embed(idx, tokens, positions)
for t in range(3):
    print(f"token {idx[0, t]} at position {t}:", " ".join(f"{number:5.2f}" for number in x[0, t].tolist()))
print("the same token at two positions has the same vector:", torch.equal(x[0, 0], x[0, 2]))
"""


def embed(idx: Tensor, token_table: Tensor, position_table: Tensor) -> Tensor:
    """Return the sum of the embeddings of token and position.

    Args:
        idx: token ids (B, T), int64, with T from 1 to block_size.
        token_table: a vector for each token, (V, C).
        position_table: a vector for each position, (block_size, C).

    Returns:
        (B, T, C).
    """
    T = idx.shape[1]
    return token_table[idx] + position_table[torch.arange(T)]


def _make_embed_case(B: int, T: int) -> Case:
    """Return a case with B rows of T tokens."""
    return Case(
        f"embed(idx, token_table, position_table), idx of shape ({B}, {T}), block_size 6",
        lambda my: my.embed(randint(5, B, T, seed=T), randn(5, 3), randn(6, 3, seed=9)),
    )


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor",
    references=(embed,),
    cases=tuple(_make_embed_case(B, T) for B, T in ((1, 1), (1, 3), (3, 3), (2, 6))),
    mistakes=tuple(
        Mistake(when, {"embed": variant})
        for when, variant in (
            ("the positions are missing", lambda idx, tokens, positions: tokens[idx]),
            (
                "only the positions are there, and the tokens are missing",
                lambda idx, tokens, positions: positions[torch.arange(idx.shape[1])].expand(len(idx), -1, -1),
            ),
            (
                "the row of the position table is chosen by the token id instead of the position",
                lambda idx, tokens, positions: tokens[idx] + positions[idx],
            ),
            (
                "positions count from the end of block_size instead of from 0",
                lambda idx, tokens, positions: tokens[idx] + positions[-idx.shape[1] :],
            ),
            (
                "positions run backwards",
                lambda idx, tokens, positions: tokens[idx] + positions[torch.arange(idx.shape[1]).flip(0)],
            ),
            (
                "the two embeddings are multiplied instead of added",
                lambda idx, tokens, positions: tokens[idx] * positions[torch.arange(idx.shape[1])],
            ),
            (
                "the two embeddings are placed side by side instead of added",
                lambda idx, tokens, positions: torch.cat(
                    [tokens[idx], positions[: idx.shape[1]].expand(len(idx), -1, -1)], dim=-1
                ),
            ),
            (
                "T is taken from the batch: it is idx.shape[1], and not len(idx)",
                lambda idx, tokens, positions: tokens[idx] + positions[: len(idx)],
            ),
            (
                "positions start at 1 instead of 0",
                lambda idx, tokens, positions: tokens[idx] + positions[1 : idx.shape[1] + 1],
            ),
            (
                "every position gets the vector of the last one: positions[:T] instead of positions[T - 1]",
                lambda idx, tokens, positions: tokens[idx] + positions[idx.shape[1] - 1],
            ),
            (
                "the two tables are exchanged",
                lambda idx, tokens, positions: positions[idx] + tokens[: idx.shape[1]],
            ),
            (
                "the sum is divided by two: the embeddings are added, without a mean",
                lambda idx, tokens, positions: (tokens[idx] + positions[: idx.shape[1]]) / 2,
            ),
            (
                "columns of the token table are taken: token_table[:, idx] instead of token_table[idx]",
                lambda idx, tokens, positions: tokens[:, idx] + positions[: idx.shape[1]],
            ),
            ("every position gets the vector of position 0", lambda idx, tokens, positions: tokens[idx] + positions[0]),
            (
                "the whole position table is added, so that T must be block_size",
                lambda idx, tokens, positions: tokens[idx] + positions,
            ),
        )
    ),
    hints=(
        "token_table[idx] takes a row for each id: (B, T, C).",
        "torch.arange(T) is 0, 1, ..., T - 1. It takes the first T rows of the position table: (T, C).",
        "(B, T, C) + (T, C) adds the same positions to each row of the batch.",
    ),
    experiment=EXPERIMENT,
)
