"""Exercises 18 and 19: byte-pair encoding."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.tokenizers.bpe_basic import Ids, Pair, count_pairs, merge_pair

IMPORTS = """
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

Ids = tuple[int, ...]
Pair = tuple[int, int]
"""

MERGE_TEXT = """
Characters are short tokens; byte-pair encoding (BPE) makes longer ones. It counts which two tokens stand side by side
most often, and replaces this pair by a new token. This is one merge.

    (1, 2, 3, 1, 2)      the pair (1, 2) occurs twice; it becomes 9:      (9, 3, 9)

Pairs can overlap. In (1, 1, 1) the pair (1, 1) stands at two places, but only one of them can be replaced. The merge
goes from left to right: (1, 1, 1) becomes (9, 1), and (1, 1, 1, 1) becomes (9, 9).

The words come with the number of times they occur: {(1, 2): 5} counts the pair (1, 2) five times. Counting does count
overlapping pairs: pairwise((1, 1, 1)) is (1, 1), (1, 1).
"""

MERGE_EXPERIMENT = """
words = {tuple(b"low"): 5, tuple(b"lower"): 2, tuple(b"newest"): 6}
counts = count_pairs(words)
for (a, b), count in counts.most_common(4):
    print(f"{chr(a)} + {chr(b)}: {count}")
print("b'banana' with 'an' merged to 256:", merge_pair(tuple(b"banana"), (97, 110), 256))
"""

TRAINING_TEXT = """
Training repeats the merge: count the pairs, merge the most frequent one in all words, and count again, because new
pairs have come up.

    low low low lower          l o w     l o w e r
    merge 1: l + o   (4x)      lo w      lo w e r
    merge 2: lo + w  (4x)      low       low e r
    merge 3: ...

The merges in the order learned are the tokenizer. If several pairs are equally frequent, the smaller pair wins, as
Python compares tuples: (1, 9) before (2, 3). If there are no more pairs, training stops early.
"""

TRAINING_EXPERIMENT = """
text = "the theme of the thesis is the thing they think of in the theatre"
words = Counter(tuple(word.encode()) for word in text.split())
names = {i: bytes([i]) for i in range(256)}
for n, (a, b) in enumerate(learn_merges(words, 256, 6)):
    names[256 + n] = names[a] + names[b]
    print(f"merge {n}: {names[a].decode()!r} + {names[b].decode()!r} = {names[256 + n].decode()!r}")
"""


def learn_merges(words: Mapping[Ids, int], first_new: int, count: int) -> list[Pair]:
    """Learn merges from words.

    Args:
        words: different words as ids, and how often each of them occurs.
        first_new: the id of the first merge's token; the next merge's is one higher.
        count: the number of merges to learn.

    Returns:
        The merged pairs in the order learned; fewer than `count` if there are no more pairs. Of equally frequent pairs
        the smaller one comes first.
    """
    merges: list[Pair] = []
    while len(merges) < count:
        counts = count_pairs(words)
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        words = {merge_pair(word, pair, first_new + len(merges)): n for word, n in words.items()}
        merges.append(pair)
    return merges


def _merge_overlapping(ids: Ids, pair: Pair, new: int) -> Ids:
    """Merge every place where the pair stands, also those that share a token."""
    merged: list[int] = []
    for i, token in enumerate(ids):
        if ids[i : i + 2] == pair:
            merged.append(new)
        elif i == 0 or ids[i - 1 : i + 1] != pair:
            merged.append(token)
    return tuple(merged)


def _merge_from_the_right(ids: Ids, pair: Pair, new: int) -> Ids:
    return merge_pair(ids[::-1], pair[::-1], new)[::-1]


def _merge_first_only(ids: Ids, pair: Pair, new: int) -> Ids:
    for i in range(len(ids) - 1):
        if ids[i : i + 2] == pair:
            return (*ids[:i], new, *ids[i + 2 :])
    return ids


def _keep_second(ids: Ids, pair: Pair, new: int) -> Ids:
    return tuple(new if ids[i : i + 2] == pair else token for i, token in enumerate(ids))


def _drop_last(ids: Ids, pair: Pair, new: int) -> Ids:
    """Stop one token before the end."""
    merged, i = [], 0
    while i < len(ids) - 1:
        if ids[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return tuple(merged)


def _either_order(ids: Ids, pair: Pair, new: int) -> Ids:
    merged: list[int] = []
    i = 0
    while i < len(ids):
        is_pair = sorted(ids[i : i + 2]) == sorted(pair)
        merged.append(new if is_pair else ids[i])
        i += 2 if is_pair else 1
    return tuple(merged)


def _count_words_once(words: Mapping[Ids, int]) -> Counter[Pair]:
    return Counter(pair for word in words for pair in pairwise(word))


def _count_each_pair_once(words: Mapping[Ids, int]) -> Counter[Pair]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += count
    return counts


def _count_across_words(words: Mapping[Ids, int]) -> Counter[Pair]:
    joined = [token for word, count in words.items() for _ in range(count) for token in word]
    return Counter(pairwise(joined))


def _count_without_overlap(words: Mapping[Ids, int]) -> Counter[Pair]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for first, second in zip(word[::2], word[1::2], strict=False):
            counts[first, second] += count
    return counts


def _count_skipping_repeats(words: Mapping[Ids, int]) -> Counter[Pair]:
    """Count pairs as the merge finds them: of overlapping equal pairs only the first."""
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += count * merge_pair(word, pair, -1).count(-1)
    return counts


def _learn(
    choose: Callable[[Any], Pair] = lambda counts: min(counts, key=lambda pair: (-counts[pair], pair)),
    merge: Callable[[Ids, Pair, int], Ids] = merge_pair,
    get_new: Callable[[int, int], int] = lambda first_new, n: first_new + n,
    get_limit: Callable[[int, int], int] = lambda first_new, count: count,
    count_them: Callable[[Any], Any] = count_pairs,
) -> dict[str, Any]:
    """Return a training with one step exchanged."""

    def learn_merges(words: Mapping[Ids, int], first_new: int, count: int) -> list[Pair]:
        merges: list[Pair] = []
        while len(merges) < get_limit(first_new, count) and (counts := count_them(words)):
            pair = choose(counts)
            words = {merge(word, pair, get_new(first_new, len(merges))): n for word, n in words.items()}
            merges.append(pair)
        return merges

    return {"learn_merges": learn_merges}


def _learn_from_one_count(words: Mapping[Ids, int], first_new: int, count: int) -> list[Pair]:
    counts = count_pairs(words)
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:count]


WORDS = {(1, 2): 1, (1, 2, 3, 1, 2): 2, (4, 4, 4): 3, (3,): 9}
FRUIT = Counter(tuple(word.encode()) for word in ("banana", "bandana", "ananas", "baa", "band", "aaaa", "sea", "lee"))


def _make_merge_case(ids: Ids, pair: Pair) -> Case:
    """Return a case that merges a pair to 9."""
    return Case(f"merge_pair({ids}, {pair}, 9)", lambda my: my.merge_pair(ids, pair, 9))


BPE_MERGE = Exercise(
    text=MERGE_TEXT,
    imports=IMPORTS,
    references=(count_pairs, merge_pair),
    cases=(
        Case("count_pairs({(1, 2): 1})", lambda my: dict(my.count_pairs({(1, 2): 1}))),
        Case("count_pairs({(3,): 9})", lambda my: dict(my.count_pairs({(3,): 9}))),
        Case("count_pairs({(4, 4, 4): 1})", lambda my: dict(my.count_pairs({(4, 4, 4): 1}))),
        Case("count_pairs({(1, 2): 2, (2, 3): 1})", lambda my: dict(my.count_pairs({(1, 2): 2, (2, 3): 1}))),
        Case(f"count_pairs({WORDS})", lambda my: dict(my.count_pairs(WORDS))),
        *(
            _make_merge_case(ids, pair)
            for ids, pair in (
                ((1, 2), (1, 2)),
                ((1,), (1, 2)),
                ((2, 1), (1, 2)),
                ((1, 1, 1), (1, 1)),
                ((1, 2, 3, 1, 2), (1, 2)),
                ((5, 1, 1, 1, 1, 6), (1, 1)),
                ((), (1, 2)),
            )
        ),
        Case("the type of merge_pair((1, 2), (1, 2), 9)", lambda my: type(my.merge_pair((1, 2), (1, 2), 9)).__name__),
    ),
    mistakes=(
        Mistake(
            "overlapping pairs are merged twice: after a merge, go on two tokens", {"merge_pair": _merge_overlapping}
        ),
        Mistake("the merge goes from right to left", {"merge_pair": _merge_from_the_right}),
        Mistake("only the first place is merged", {"merge_pair": _merge_first_only}),
        Mistake("the second token of the pair stays: after a merge, go on two tokens", {"merge_pair": _keep_second}),
        Mistake("the last token is lost", {"merge_pair": _drop_last}),
        Mistake(
            "merge_pair returns a list instead of a tuple, which can be a key of a dict",
            {"merge_pair": lambda ids, pair, new: list(merge_pair(ids, pair, new))},
        ),
        Mistake("the pair is merged in both orders, (2, 1) too", {"merge_pair": _either_order}),
        Mistake("each word counts once, and not as often as it occurs", {"count_pairs": _count_words_once}),
        Mistake("a pair counts only once in a word", {"count_pairs": _count_each_pair_once}),
        Mistake("pairs across the border of two words are counted", {"count_pairs": _count_across_words}),
        Mistake(
            "the count goes on two tokens instead of one, and misses pairs", {"count_pairs": _count_without_overlap}
        ),
        Mistake(
            "overlapping pairs are counted once, and the exercise counts both", {"count_pairs": _count_skipping_repeats}
        ),
    ),
    hints=(
        "pairwise(word) gives the pairs of a word: (1, 2, 3) has (1, 2) and (2, 3). Add the word's count for each.",
        "For the merge use while i < len(ids): a for loop cannot skip a token.",
        "If ids[i : i + 2] == pair, append new and add 2 to i; else append ids[i] and add 1. Return a tuple.",
    ),
    experiment=MERGE_EXPERIMENT,
)

BPE_TRAINING = Exercise(
    text=TRAINING_TEXT,
    imports=IMPORTS,
    parts=("count_pairs", "merge_pair"),
    references=(learn_merges,),
    cases=(
        Case("learn_merges({(1, 2): 1}, 10, 1)", lambda my: my.learn_merges({(1, 2): 1}, 10, 1)),
        Case("learn_merges({(1, 2): 1}, 10, 3)", lambda my: my.learn_merges({(1, 2): 1}, 10, 3)),
        Case("learn_merges({(5, 6): 2, (1, 9): 2}, 10, 1)", lambda my: my.learn_merges({(5, 6): 2, (1, 9): 2}, 10, 1)),
        Case("learn_merges({(5, 6): 1, (7, 8): 3}, 10, 1)", lambda my: my.learn_merges({(5, 6): 1, (7, 8): 3}, 10, 1)),
        Case("learn_merges({(1, 2, 3): 2}, 10, 2)", lambda my: my.learn_merges({(1, 2, 3): 2}, 10, 2)),
        Case("learn_merges({(1,): 3}, 10, 2)", lambda my: my.learn_merges({(1,): 3}, 10, 2)),
        Case("learn_merges(the bytes of eight words, 256, 0)", lambda my: my.learn_merges(FRUIT, 256, 0)),
        Case("learn_merges(the bytes of eight words, 256, 8)", lambda my: my.learn_merges(FRUIT, 256, 8)),
    ),
    mistakes=(
        Mistake(
            "of equally frequent pairs the largest wins instead of the smallest",
            _learn(choose=lambda counts: max(counts, key=lambda pair: (counts[pair], pair))),
        ),
        Mistake(
            "of equally frequent pairs the one that was counted first wins, instead of the smallest",
            _learn(choose=lambda counts: max(counts, key=counts.get)),
        ),
        Mistake(
            "the rarest pair is merged instead of the most frequent",
            _learn(choose=lambda counts: min(counts, key=lambda pair: (counts[pair], pair))),
        ),
        Mistake("the pairs are counted only once, before the first merge", {"learn_merges": _learn_from_one_count}),
        Mistake(
            "every merge gets the same id: the next one must be one higher",
            _learn(get_new=lambda first_new, n: first_new),
        ),
        Mistake("the ids of the merges start one too high", _learn(get_new=lambda first_new, n: first_new + n + 1)),
        Mistake("one merge too few is learned", _learn(get_limit=lambda first_new, count: count - 1)),
        Mistake("one merge too many is learned", _learn(get_limit=lambda first_new, count: count + 1)),
        Mistake("each word counts once, and not as often as it occurs", _learn(count_them=_count_words_once)),
        Mistake("only the first place in each word is merged", _learn(merge=_merge_first_only)),
    ),
    hints=(
        "A loop: counts = count_pairs(words); choose the pair; merge it in every word; remember it.",
        "min(counts, key=lambda pair: (-counts[pair], pair)) is the most frequent pair, of equal ones the smallest.",
        "words = {merge_pair(word, pair, new): n for word, n in words.items()} merges it in every word.",
    ),
    experiment=TRAINING_EXPERIMENT,
)

EXERCISES = {"bpe_merge": BPE_MERGE, "bpe_training": BPE_TRAINING}
