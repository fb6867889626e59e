"""Byte-level byte-pair encoding (BPE): how GPT-2 and GPT-4 turn text into tokens, in four short functions.

Training begins with 256 tokens, one for each byte, so no text is ever unknown. It cuts the text into pieces, roughly
words, and then repeats one step: count which two tokens stand side by side most often inside the pieces, and merge that
pair into a new token. The merges, in the order learned, are the tokenizer. An example (_ is a blank):

    low _low _low _lower _lowest      the pieces of "low low low lower lowest"
    l o w   _ l o w   ...             each piece as bytes
    lo w    _ lo w    ...             merge 1: "l" + "o", which occurs 5 times
    low     _ low     ...             merge 2: "lo" + "w"
    low     _low      ...             merge 3: "_" + "low", which occurs 4 times

To encode a text, cut it into pieces in the same way and do the same merges, the earliest learned first:
"a lower low" becomes "a", "_low", "e", "r", "_low".

`BPETokenizer` uses bpe_fast.py, whose functions `find_merges` and `apply_merges` return the same results faster.
(Sennrich et al. 2016, arXiv:1508.07909; over bytes: Radford et al. 2019, GPT-2.)
"""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from minigpt.tokenizers.byte_level import BYTE_TOKENS

Pair = tuple[int, int]
Ids = tuple[int, ...]

_BYTE_IDS = {token[0]: i for i, token in enumerate(BYTE_TOKENS)}


def count_pairs(words: Mapping[Ids, int]) -> Counter[Pair]:
    """Count how often each two tokens stand side by side.

    Args:
        words: different words as ids, and how often each word occurs.
    """
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def merge_pair(ids: Ids, pair: Pair, new: int) -> Ids:
    """Replace every occurrence of `pair`, from the left, by the id `new`.

    >>> merge_pair((1, 2, 1, 2, 1), (1, 2), 9)
    (9, 9, 1)
    """
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return tuple(merged)


def find_merges(words: Mapping[bytes, int], vocab_size: int) -> list[tuple[bytes, bytes]]:
    """Learn the merges of a vocabulary.

    Args:
        words: different words, and how often each of them occurs.
        vocab_size: the number of tokens to reach, the 256 bytes included.

    Returns:
        The merges in the order learned. There are fewer tokens than `vocab_size` if the words have no more pairs. Of
        equally frequent pairs the one with the smaller ids comes first, as in Hugging Face's trainer.
    """
    tokens = list(BYTE_TOKENS)
    merges = []
    split = {tuple(_BYTE_IDS[byte] for byte in word): count for word, count in words.items()}
    while len(tokens) < vocab_size:
        counts = count_pairs(split)
        if not counts:
            break
        first, second = pair = min(counts, key=lambda pair: (-counts[pair], pair))
        token = tokens[first] + tokens[second]
        if token not in tokens:  # two pairs may spell the same token
            tokens.append(token)
        merges.append((tokens[first], tokens[second]))
        split = {merge_pair(word, pair, tokens.index(token)): count for word, count in split.items()}
    return merges


def apply_merges(ids: Ids, ranks: Mapping[Pair, tuple[int, int]]) -> Ids:
    """Encode a piece of text.

    Args:
        ids: the ids of the piece's bytes.
        ranks: for each pair that can be merged, the rank of the merge (0 was learned first) and the new id.
    """
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: ranks.get(pair, (math.inf, 0)))  # the merge learned first
        if pair not in ranks:
            break
        ids = merge_pair(ids, pair, ranks[pair][1])
    return ids
