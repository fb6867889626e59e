"""tiktoken, which encodes large texts faster than Python can, from our merges; and our merges from its vocabularies.

tiktoken knows a vocabulary as ranks: tokens in the order learned. It merges any two neighbors whose bytes together are
a token, the lowest rank first. A list of merges can say more than that, so tiktoken is used only where both agree.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import regex

from minigpt.errors import DataError
from minigpt.tokenizers.bpe_basic import Pair
from minigpt.tokenizers.bpe_fast import apply_merges
from minigpt.tokenizers.byte_level import PATTERNS

_MAX_PIECE = 5000  # characters; tiktoken's time for a piece is quadratic, so for longer ones Python is faster
_LONG_WHITESPACE = regex.compile(rf"\s{{{_MAX_PIECE}}}")


class TiktokenEncoder:
    """Encodes texts by tiktoken. Several threads may share it."""

    name = "tiktoken"

    def __init__(self, encoding: Any, rank_to_id: Sequence[int]) -> None:
        """Take a `tiktoken.Encoding`, and our id of each of its ranks."""
        self.encoding, self.rank_to_id = encoding, np.array(rank_to_id, np.uint32)

    @classmethod
    def build(cls, merges: Sequence[tuple[bytes, bytes]], vocab: Mapping[int, bytes], pattern: str) -> Self | None:
        """Build an encoder.

        Args:
            merges: pairs of tokens, in the order learned.
            vocab: the bytes of each token, by id, without special tokens.
            pattern: a key of `PATTERNS`.

        Returns:
            The encoder, or None if tiktoken is not installed or would not return the ids of these merges.
        """
        try:
            import tiktoken
        except ImportError:
            return None
        ids = {token: i for i, token in vocab.items()}
        alphabet = sorted((token for token in ids if len(token) == 1), key=ids.__getitem__)
        order = [*alphabet, *(first + second for first, second in merges)]
        ranks = {token: rank for rank, token in enumerate(order)}
        if not _has_merges(ranks, merges):
            return None
        split = PATTERNS[pattern]
        encoding = tiktoken.Encoding("minigpt", pat_str=split, mergeable_ranks=ranks, special_tokens={})
        return cls(encoding, [ids[token] for token in order])

    def can_encode(self, text: str) -> bool:
        """Return True for a text without a very long piece."""
        return max(map(len, text.split()), default=0) < _MAX_PIECE and not _LONG_WHITESPACE.search(text)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, (N,), uint32. Other threads can run meanwhile.

        `encode_to_numpy` looks for special tokens. Without any, it does so at every character, and takes longer.
        """
        return [self.rank_to_id[np.array(self.encoding.encode_ordinary(text), np.uint32)] for text in texts]


def recover_merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return the merges of a vocabulary that is known only as ranks.

    A token's last merge joins the two parts that remain when all earlier merges are done.

    Args:
        ranks: the rank of each token; 0 was learned first.

    Raises:
        DataError: a token is not made of two earlier ones.
    """
    merges, known = [], _KnownTokens()
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            parts = [known.tokens[i] for i in apply_merges(list(token), known)]
            if len(parts) != 2:
                raise DataError(f"the token {token[:40]!r} is not made of two that come before it")
            merges.append((parts[0], parts[1]))
            known.add(token)
    return merges


class _KnownTokens(dict[Pair, tuple[int, int]]):
    """The merges of any two tokens that together are a known token, the earliest known first: tiktoken's rule."""

    def __init__(self) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)]
        self.ids = {token: i for i, token in enumerate(self.tokens)}

    def add(self, token: bytes) -> None:
        """Add a token."""
        self.ids[token] = len(self.tokens)
        self.tokens.append(token)

    def __contains__(self, pair: Any) -> bool:
        first, second = pair
        return self.tokens[first] + self.tokens[second] in self.ids

    def __missing__(self, pair: Pair) -> tuple[int, int]:
        i = self.ids[self.tokens[pair[0]] + self.tokens[pair[1]]]
        return i, i


def _has_merges(ranks: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return True if the ranks have exactly these merges."""
    try:
        return recover_merges(ranks) == list(merges)
    except DataError:
        return False
