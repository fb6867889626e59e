"""Exercise 19: learn the merges of byte-pair encoding."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.exercises.bpe_merge import IMPORTS, count_words_once, merge_first_only
from minigpt.tokenizers.bpe_basic import Ids, Pair, count_pairs, merge_pair

TEXT = """
Training repeats the merge: count the pairs, merge the most frequent one in all words, and count again, because new
pairs have come up.

    low low low lower          l o w     l o w e r
    merge 1: l + o   (4x)      lo w      lo w e r
    merge 2: lo + w  (4x)      low       low e r
    merge 3: ...

The merges in the order learned are the tokenizer. If several pairs are equally frequent, the smaller pair wins, as
Python compares tuples: (1, 9) before (2, 3). If there are no more pairs, training stops early.
"""

EXPERIMENT = """
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


FRUIT = Counter(tuple(word.encode()) for word in ("banana", "bandana", "ananas", "baa", "band", "aaaa", "sea", "lee"))

EXERCISE = Exercise(
    text=TEXT,
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
            "the merged words are not kept, so that the same pair is found again and again",
            _learn(merge=lambda word, pair, new: word),
        ),
        Mistake(
            "pairs that occur once are not merged: training stops only if there are no pairs",
            _learn(count_them=lambda words: {p: n for p, n in count_pairs(words).items() if n > 1}),
        ),
        Mistake("the ids begin at 256: the first one is first_new", _learn(get_new=lambda first_new, n: 256 + n)),
        Mistake(
            "the ids of the merges are returned too: the result is a list of pairs",
            {
                "learn_merges": lambda words, first, count: dict(
                    zip(learn_merges(words, first, count), range(first, 999), strict=False)
                )
            },
        ),
        Mistake(
            "every merge gets the same id: the next one must be one higher",
            _learn(get_new=lambda first_new, n: first_new),
        ),
        Mistake("the ids of the merges start one too high", _learn(get_new=lambda first_new, n: first_new + n + 1)),
        Mistake("one merge too few is learned", _learn(get_limit=lambda first_new, count: count - 1)),
        Mistake("one merge too many is learned", _learn(get_limit=lambda first_new, count: count + 1)),
        Mistake("each word counts once, and not as often as it occurs", _learn(count_them=count_words_once)),
        Mistake("only the first place in each word is merged", _learn(merge=merge_first_only)),
    ),
    hints=(
        "A loop: counts = count_pairs(words); choose the pair; merge it in every word; remember it.",
        "min(counts, key=lambda pair: (-counts[pair], pair)) is the most frequent pair, of equal ones the smallest.",
        "words = {merge_pair(word, pair, new): n for word, n in words.items()} merges it in every word.",
    ),
    experiment=EXPERIMENT,
)
