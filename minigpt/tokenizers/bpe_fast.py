"""The same merges and the same ids as the plain functions of tokenizers/bpe.py, faster.

Learning counts each different word once and keeps the counts of all pairs up to date as words change, with the words
that hold a pair noted beside it; a heap knows the most frequent one. Encoding a long piece keeps its pairs in a heap
too, so that its time grows with n log n, whatever the text. Large texts go through tiktoken, if it is installed.
"""

import functools
import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import regex

from minigpt.errors import DataError
from minigpt.system.process_pool import map_in_order, start_pool

Pair = tuple[int, int]

LARGE = 2**20  # characters from which on a text is worth what it takes to set tiktoken up
SHARE = 2**22  # characters for a process to count at a time
SHORT = 32  # tokens up to which looking through all pairs is faster than a heap of them
LONG = 5000  # characters of one piece from which on tiktoken, whose time for a piece is quadratic, is the slower
LONG_BLANK = regex.compile(rf"\s{{{LONG}}}")
logger = logging.getLogger(__name__)


def count_words(text: str, pieces: Callable[[str], list[str]], processes: int = 1) -> Counter[bytes]:
    """How often each piece occurs in a text, by so many processes if it is long."""
    if processes == 1 or len(text) <= SHARE:
        return _count(text, pieces)
    words: Counter[bytes] = Counter()
    with start_pool(processes) as pool:
        for part in map_in_order(pool, functools.partial(_count, pieces=pieces), shares(text)):
            words.update(part)
    return words


def _count(text: str, pieces: Callable[[str], list[str]]) -> Counter[bytes]:
    counted = Counter(pieces(text))
    return Counter({word.encode("utf-8", "surrogateescape"): count for word, count in counted.items()})


def shares(text: str, size: int = SHARE) -> Iterator[str]:
    """The text in parts of about that size, cut only after a line end that has no white space beside it.

    Between such a line end and what follows it every pattern ends a piece, so the pieces are those of the whole.
    """
    start = 0
    while start < len(text):
        cut = LINE_END.search(text, start + size)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


LINE_END = regex.compile(r"(?<=\S)\n(?=\S)")


def learn(words: Mapping[bytes, int], vocab_size: int, alphabet: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The merges that make `vocab_size` tokens, those of the alphabet included, or as many as the words allow."""
    tokens = list(alphabet)
    ids = {token: i for i, token in enumerate(tokens)}
    split = [[ids[word[i : i + 1]] for i in range(len(word))] for word in words]
    times = list(words.values())
    counts: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, set[int]] = defaultdict(set)  # words that hold the pair, or once did
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
        if count != -negative:  # it has changed meanwhile
            if 0 < count < -negative:
                heapq.heappush(heap, (-count, pair))
            continue
        first, second = tokens[pair[0]], tokens[pair[1]]
        new = ids.setdefault(first + second, len(tokens))
        if new == len(tokens):
            tokens.append(first + second)
        merges.append((first, second))
        more = set()
        for n in places.pop(pair):
            split[n], changes = merge(split[n], pair, new)
            for other, change in changes:
                counts[other] += change * times[n]
                if change > 0:
                    places[other].add(n)
                    more.add(other)
        counts[pair] = 0
        for other in more:
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], other))
    return merges


def merge(word: list[int], pair: Pair, new: int) -> tuple[list[int], list[tuple[Pair, int]]]:
    """The word with the pair, from the left, replaced by the new id; and which pairs that takes away and adds."""
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


def encode(ids: list[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """A piece of text, as the ids of its bytes, with all merges done; a pair's rank and new id are in `ranks`."""
    if len(ids) > SHORT:
        return encode_long(ids, ranks)
    while len(ids) > 1:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
        if not found:
            break
        (_, new), i = min(found)
        ids[i : i + 2] = [new]
    return ids


def encode_long(ids: list[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """The same in n log n: every pair that can be merged waits in a heap, the earliest merge and leftmost first."""
    ids = list(ids)
    before, after = [*range(-1, len(ids) - 1)], [*range(1, len(ids) + 1)]  # who stands beside whom, as they vanish
    heap = [(*ranks[pair], i, pair) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)
    end, gone = len(ids), -1
    while heap:
        _, new, i, (first, second) = heapq.heappop(heap)
        j = after[i]
        if ids[i] != first or j == end or ids[j] != second:  # one of them has been merged already
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


def recover_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges of a vocabulary that is only known as tokens in the order learned: what each was merged from.

    That is what is left of a token once all earlier merges are done.
    """
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            rank, i = min((ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(pairwise(parts)))
            if rank >= ranks[token]:
                raise DataError(f"the token {token!r} is not made of two that come before it")
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


def suits_tiktoken(text: str, at_least: int = LARGE) -> bool:
    """Whether a text is large, without very long pieces, and UTF-8."""
    if len(text) < at_least or max(map(len, text.split()), default=0) >= LONG or LONG_BLANK.search(text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def implied(ranks: dict[bytes, int], merges: list[tuple[bytes, bytes]]) -> bool:
    """Whether the merges are those that follow from the order of their tokens."""
    try:
        return recover_merges(ranks) == merges
    except DataError:
        return False


def by_tiktoken(
    merges: list[tuple[bytes, bytes]], vocab: Mapping[int, bytes], pattern: str
) -> Callable[[str], list[int]] | None:
    """`encode` made of tiktoken and the same merges, or None without it.

    To tiktoken a token's place in the order of merges is all, and any two neighbours make one whose bytes it knows:
    where the merges are not what follows from that, None as well. `vocab` is without special tokens.
    """
    try:
        import tiktoken
    except ImportError:
        return None
    ids = {token: i for i, token in vocab.items()}
    alphabet = sorted((token for token in ids if len(token) == 1), key=ids.__getitem__)
    order = [*alphabet, *(first + second for first, second in merges)]
    ranks = {token: rank for rank, token in enumerate(order)}
    if not implied(ranks, merges):  # two ways to the same bytes are not either
        return None
    encoding = tiktoken.Encoding("minigpt", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    logger.info("large texts are encoded by tiktoken, with the same merges")
    renamed = [ids[token] for token in order]
    if renamed == list(range(len(renamed))):
        return encoding.encode_ordinary
    return lambda text: [renamed[rank] for rank in encoding.encode_ordinary(text)]
