"""Exercise 18: count pairs of tokens, and merge one."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.tokenizers.bpe_basic import Ids, Pair, count_pairs, merge_pair

IMPORTS = """
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

Ids = tuple[int, ...]
Pair = tuple[int, int]
"""

TEXT = """
Characters are short tokens; byte-pair encoding (BPE) makes longer ones. It counts which two tokens stand side by side
most often, and replaces this pair by a new token. This is one merge.

    (1, 2, 3, 1, 2)      the pair (1, 2) occurs twice; it becomes 9:      (9, 3, 9)

Pairs can overlap. In (1, 1, 1) the pair (1, 1) stands at two places, but only one of them can be replaced. The merge
goes from left to right: (1, 1, 1) becomes (9, 1), and (1, 1, 1, 1) becomes (9, 9).

The words come with the number of times they occur: {(1, 2): 5} counts the pair (1, 2) five times. Overlapping pairs
are both counted: pairwise((1, 1, 1)) is (1, 1), (1, 1).
"""

EXPERIMENT = """
words = {tuple(b"low"): 5, tuple(b"lower"): 2, tuple(b"newest"): 6}
counts = count_pairs(words)
for (a, b), count in sorted(counts.items(), key=lambda item: -item[1])[:4]:
    print(f"{chr(a)} + {chr(b)}: {count}")
print("b'banana' with 'an' merged to 256:", merge_pair(tuple(b"banana"), (97, 110), 256))
"""


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


def merge_first_only(ids: Ids, pair: Pair, new: int) -> Ids:
    """Merge only the first place where the pair stands: a mistake."""
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


def count_words_once(words: Mapping[Ids, int]) -> Counter[Pair]:
    """Count each word once, however often it occurs: a mistake."""
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


WORDS = {(1, 2): 1, (1, 2, 3, 1, 2): 2, (4, 4, 4): 3, (3,): 9}


def _make_merge_case(ids: Ids, pair: Pair) -> Case:
    """Return a case that merges a pair to 9."""
    return Case(f"merge_pair({ids}, {pair}, 9)", lambda my: my.merge_pair(ids, pair, 9))


def _count_last_only(words: Mapping[Ids, int]) -> Counter[Pair]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        counts |= Counter(dict.fromkeys(pairwise(word), 0))
        counts.update({pair: count - counts[pair] for pair in pairwise(word)})
    return counts


def _count_sorted(words: Mapping[Ids, int]) -> Counter[Pair]:
    counts: Counter[Pair] = Counter()
    for (a, b), count in count_pairs(words).items():
        counts[min(a, b), max(a, b)] += count
    return counts


def _count_without_last(words: Mapping[Ids, int]) -> Counter[Pair]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word[:-1]):
            counts[pair] += count
    return counts


EXERCISE = Exercise(
    text=TEXT,
    imports=IMPORTS,
    references=(count_pairs, merge_pair),
    cases=(
        Case("count_pairs({(1, 2): 1})", lambda my: my.count_pairs({(1, 2): 1})),
        Case("count_pairs({(3,): 9})", lambda my: my.count_pairs({(3,): 9})),
        Case("count_pairs({(4, 4, 4): 1})", lambda my: my.count_pairs({(4, 4, 4): 1})),
        Case("count_pairs({(1, 2): 2, (2, 3): 1})", lambda my: my.count_pairs({(1, 2): 2, (2, 3): 1})),
        Case(f"count_pairs({WORDS})", lambda my: my.count_pairs(WORDS)),
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
        Mistake("only the first place is merged", {"merge_pair": merge_first_only}),
        Mistake("the second token of the pair stays: after a merge, go on two tokens", {"merge_pair": _keep_second}),
        Mistake(
            "each token of the pair is replaced, alone too",
            {"merge_pair": lambda ids, pair, new: tuple(new if i in pair else i for i in ids)},
        ),
        Mistake("the last token is lost", {"merge_pair": _drop_last}),
        Mistake(
            "merge_pair returns a list instead of a tuple, which can be a key of a dict",
            {"merge_pair": lambda ids, pair, new: list(merge_pair(ids, pair, new))},
        ),
        Mistake("the pair is merged in both orders, (2, 1) too", {"merge_pair": _either_order}),
        Mistake("each word counts once, and not as often as it occurs", {"count_pairs": count_words_once}),
        Mistake("a pair counts only once in a word", {"count_pairs": _count_each_pair_once}),
        Mistake("a count is set instead of raised: += instead of =", {"count_pairs": _count_last_only}),
        Mistake(
            "a pair and its reverse are counted together: (1, 2) is not (2, 1)",
            {"count_pairs": lambda words: _count_sorted(words)},
        ),
        Mistake("the last pair of each word is not counted", {"count_pairs": _count_without_last}),
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
    experiment=EXPERIMENT,
)
