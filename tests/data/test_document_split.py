"""Documents are cut into passages and split."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from texts import PROSE, random_text

from minigpt.data.document_split import (
    LONG_DOCUMENT,
    MAX_PASSAGE,
    Passage,
    batch_passages,
    cut_passages,
    find_threshold,
    hash_to_fraction,
    split_documents,
)
from minigpt.tokenizers.bpe import BPETokenizer


def chunked(text: str, size: int) -> Iterator[tuple[str, bool]]:
    """A document in chunks of `size` characters."""
    yield from ((text[start : start + size], False) for start in range(0, len(text), size))
    yield "", True


def cut(text: str, size: int = 10**9) -> list[Passage]:
    return list(split_documents(chunked(text, size), 0.9))


LONG_TEXTS = [
    PROSE * 20,
    "".join(random_text(random.Random(seed), 2000) for seed in range(80)),
    "x" * 200_000,
    "line\n" * 40_000,
    " " * 150_000,
]


@pytest.mark.parametrize("text", LONG_TEXTS, ids=["prose", "unicode", "one letter", "lines", "blanks"])
def test_the_cuts_of_a_long_document_do_not_depend_on_the_chunks(text: str) -> None:
    found = cut(text)
    assert "".join(piece.text for piece in found) == text
    assert max(len(piece.text) for piece in found[:-1]) <= MAX_PASSAGE
    assert [piece.ends_document for piece in found] == [False] * (len(found) - 1) + [True]
    for size in (1, 1000, 65_537):
        assert list(split_documents(chunked(text, size), 0.9)) == found


def test_passages_have_the_tokens_of_the_whole_document() -> None:
    text = PROSE * 20
    tokenizer = BPETokenizer.train(PROSE, 600)
    found = [i for passage, _, _ in cut_passages(chunked(text, 5000)) for i in tokenizer.encode(passage)]
    assert found == tokenizer.encode(text)


def test_validation_passages_are_evenly_spaced() -> None:
    found = cut(PROSE * 60)
    for start in range(len(found) - 20):
        assert 1 <= sum(piece.split == "val" for piece in found[start : start + 20]) <= 3
    for piece, following in itertools.pairwise(found):
        assert piece.ends_run == (piece.split != following.split)


def test_the_text_of_a_short_document_decides_its_split() -> None:
    texts = [f"document number {i}" for i in range(5000)]
    splits = {text: cut(text)[0].split for text in texts}
    share = Counter(splits.values())["val"] / len(texts)
    assert 0.08 < share < 0.12  # 0.1 give or take four times 0.004
    rng = random.Random(0)
    for text in rng.sample(texts, 50):
        assert cut(text, size=3) == [Passage(text, splits[text], True, True, "")]
    whole = "a " * (LONG_DOCUMENT // 2)
    assert len(cut(whole)) == 1
    assert len(cut(whole + "b")) > 1


def test_batches_have_whole_passages() -> None:
    found = cut(PROSE * 20)
    lists = list(batch_passages(found, 10_000))
    assert [piece for part in lists for piece in part] == found
    assert all(sum(len(piece.text) for piece in part[:-1]) < 10_000 for part in lists)


def test_exact_copies_are_split_alike_and_near_copies_need_not_be() -> None:
    document = PROSE * (LONG_DOCUMENT // len(PROSE) + 10)
    assert cut(document) == cut(f"{document}")
    first, second = (
        [place for place, passage in enumerate(cut(text)) if passage.split == "val"]
        for text in (document, f"x{document[1:]}")
    )
    assert first != second
    short = [f"{n} {PROSE[:500]}" for n in range(200)]
    assert {passage.split for text in short for passage in cut(text)} == {"train", "val"}


def split_texts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Short documents of a small corpus: those that are trained on, and those that validate."""
    chunks = [(text, True) for text in texts]
    passages = list(split_documents(chunks, 0.9, "it", find_threshold(chunks, 0.9)))
    train, val = ([passage.text for passage in passages if passage.split == split] for split in ("train", "val"))
    return train, val


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_of_two_different_documents_on_both_splits_have_one(count: int) -> None:
    for number in range(30):
        train, val = split_texts([f"corpus {number}, document {n}" for n in range(count)])
        assert train
        assert val
        assert len(train) + len(val) == count


def test_a_small_corpus_that_grows_keeps_most_of_its_split() -> None:
    texts = [f"document {n}" for n in range(300)]
    for n in range(2, 300):
        (_, before), (_, after) = split_texts(texts[: n - 1]), split_texts(texts[:n])
        assert len({*before} ^ ({*after} - {texts[n - 1]})) <= 1
    assert all((hash_to_fraction(text) >= 0.9) == (text in after) for text in texts)


def test_only_one_document_or_a_long_one_leaves_the_threshold() -> None:
    assert find_threshold([("same", True)] * 3, 0.9) == 0.9
    assert find_threshold([], 0.9) == 0.9
    long = [*chunked(LONG_TEXTS[0], 10**9), ("a", True), ("b", True)]
    assert find_threshold(long, 0.9) == 0.9
