"""The functions of bpe_basic.py, faster: the same merges and the same ids.

`find_merges` counts each different word once. When a merge changes some words, it updates the counts of the pairs in
these words only, and a heap returns the most frequent pair. `apply_merges` keeps the pairs of a long piece in a heap
too, so its time grows with n log n.
"""

import functools
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import regex

from minigpt.system.process_pool import map_in_order, start_pool
from minigpt.tokenizers.bpe_basic import Pair
from minigpt.tokenizers.byte_level import BYTE_TOKENS

_SHORT_PIECE = 32  # tokens; up to here a search through all pairs is faster than a heap
_CHARACTERS_PER_JOB = 2**22
_LINE_END = regex.compile(r"(?<=\S)\n(?=\S)")


def count_words(
    text: str,
    cut: Callable[[str], list[str]],
    processes: int = 1,
    characters_per_job: int = _CHARACTERS_PER_JOB,
) -> Counter[bytes]:
    """Count how often each piece occurs in a text.

    Args:
        text: the text.
        cut: the function that cuts a text into pieces.
        processes: how many processes share the work.
        characters_per_job: the length of the parts of the text that a process counts at a time.
    """
    if processes == 1 or len(text) <= characters_per_job:
        return _count_pieces(text, cut)
    words: Counter[bytes] = Counter()
    with start_pool(processes) as pool:
        count = functools.partial(_count_pieces, cut=cut)
        for part in map_in_order(pool, count, split_at_lines(text, characters_per_job)):
            words.update(part)
    return words


def _count_pieces(text: str, cut: Callable[[str], list[str]]) -> Counter[bytes]:
    counted = Counter(cut(text))
    return Counter({word.encode("utf-8", "surrogateescape"): count for word, count in counted.items()})


def split_at_lines(text: str, size: int) -> Iterator[str]:
    """Split a text into parts of about `size` characters whose pieces are the pieces of the whole text.

    Every pattern ends a piece between a line end and the character after it, if no other white space is beside the
    line end. The text is split only there.
    """
    start = 0
    while start < len(text):
        line_end = _LINE_END.search(text, start + size)
        end = line_end.end() if line_end else len(text)
        yield text[start:end]
        start = end


def find_merges(words: Mapping[bytes, int], vocab_size: int) -> list[tuple[bytes, bytes]]:
    """Learn the merges of a vocabulary, as bpe_basic.py's function of the same name does."""
    tokens = list(BYTE_TOKENS)
    ids = {token: i for i, token in enumerate(tokens)}
    split = [[ids[word[i : i + 1]] for i in range(len(word))] for word in words]
    times = list(words.values())
    counts: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that have, or once had, the pair
    for n, word in enumerate(split):
        for pair in pairwise(word):
            counts[pair] += times[n]
            places[pair].add(n)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges = []
    while len(tokens) < vocab_size and heap:
        negative, pair = heapq.heappop(heap)
        count = counts[pair]
        if count != -negative:  # the count has changed since the pair was put into the heap
            if 0 < count < -negative:
                heapq.heappush(heap, (-count, pair))
            continue
        first, second = tokens[pair[0]], tokens[pair[1]]
        new = ids.setdefault(first + second, len(tokens))
        if new == len(tokens):
            tokens.append(first + second)
        merges.append((first, second))
        increased = set()
        for n in places.pop(pair):
            split[n], changes = _merge_pair(split[n], pair, new)
            for other, change in changes:
                counts[other] += change * times[n]
                if change > 0:
                    places[other].add(n)
                    increased.add(other)
        counts[pair] = 0
        for other in increased:
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], other))
    return merges


def _merge_pair(word: list[int], pair: Pair, new: int) -> tuple[list[int], list[tuple[Pair, int]]]:
    """Replace the pair, from the left, by the new id; return the word and how the counts of its pairs change."""
    merged: list[int] = []
    changes: list[tuple[Pair, int]] = []
    i, last = 0, len(word) - 1
    while i <= last:
        if i < last and word[i] == pair[0] and word[i + 1] == pair[1]:
            if merged:
                changes += [((merged[-1], pair[0]), -1), ((merged[-1], new), 1)]
            if i + 1 < last:
                changes += [((pair[1], word[i + 2]), -1), ((new, word[i + 2]), 1)]
            merged.append(new)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged, changes


def apply_merges(ids: list[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """Encode a piece of text, as bpe_basic.py's function of the same name does; `ids` may be changed."""
    if len(ids) > _SHORT_PIECE:
        return apply_merges_with_heap(ids, ranks)
    while len(ids) > 1:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
        if not found:
            break
        (_, new), i = min(found)
        ids[i : i + 2] = [new]
    return ids


def apply_merges_with_heap(ids: list[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """Encode a long piece of text in n log n: a heap returns the pair whose merge was learned first."""
    ids = list(ids)
    before, after = [*range(-1, len(ids) - 1)], [*range(1, len(ids) + 1)]  # each token's neighbors, a linked list
    heap = [(*ranks[pair], i, pair) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)
    end, gone = len(ids), -1
    while heap:
        _, new, i, (first, second) = heapq.heappop(heap)
        j = after[i]
        if ids[i] != first or j == end or ids[j] != second:  # another merge has already taken one of them
            continue
        ids[i], ids[j] = new, gone
        k = after[i] = after[j]
        if k < end:
            before[k] = i
        for left, right in ((before[i], i), (i, k)):
            pair = (ids[left], ids[right]) if left >= 0 and right < end else (gone, gone)
            if pair in ranks:
                heapq.heappush(heap, (*ranks[pair], left, pair))
    return [i for i in ids if i != gone]
