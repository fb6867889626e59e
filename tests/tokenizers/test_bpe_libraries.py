"""Libraries encode large texts for `BPETokenizer`: always to our ids."""

import random
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from conftest import make_text
from texts import PROSE, random_text

from minigpt.errors import DataError
from minigpt.tokenizers import tiktoken_adapter
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.bpe_libraries import HARD_CASES, LIBRARIES, Library, LibraryEncoder
from minigpt.tokenizers.byte_level import PATTERNS
from minigpt.tokenizers.gigatoken_adapter import GigatokenEncoder
from minigpt.tokenizers.tiktoken_adapter import TiktokenEncoder

NEW_CHARACTER = "\U0003fffe"  # in no version of Unicode


def make_tokenizer(pattern: str = "gpt2", seed: int = 0) -> BPETokenizer:
    """A tokenizer with merges of prose and of all kinds of characters."""
    text = PROSE + make_text(5000, seed=3) + random_text(random.Random(seed), 20_000)
    return BPETokenizer.train(text, 900, ["<|endoftext|>"], pattern)


def set_up(name: str, tokenizer: BPETokenizer) -> Library:
    """A library for a tokenizer's vocabulary."""
    vocab = {i: token for token, i in tokenizer.ids.items()}
    library = LIBRARIES[name](tokenizer.merges, vocab, tokenizer.pattern)
    assert library is not None
    return library


def to_lists(arrays: Sequence[np.ndarray]) -> list[list[int]]:
    return [ids.tolist() for ids in arrays]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_returns_the_ids_of_python(name: str, pattern: str) -> None:
    tokenizer = make_tokenizer(pattern)
    library = set_up(name, tokenizer)
    rng = random.Random(7)
    texts = [random_text(rng, rng.randint(1, 200)) for _ in range(800)]
    texts += ["".join(rng.choices(HARD_CASES, k=3)) for _ in range(50)]
    texts += [*HARD_CASES, PROSE, "", "a" * 4999, " " * 4999 + "x", "\r\n" * 300 + "x", "a<|endoftext|>b", "\x00\x01"]
    found = library.encode(texts)
    assert all(ids.dtype == np.uint32 for ids in found)
    for text, ids in zip(texts, found, strict=True):
        assert ids.tolist() == tokenizer.encode_in_python(text), repr(text)


@pytest.mark.parametrize("name", LIBRARIES)
def test_ids_in_another_order_go_through_a_library_too(name: str, tmp_path: Path) -> None:
    theirs = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    theirs.train_from_iterator([PROSE], vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    theirs.save(str(tmp_path / "tokenizer.json"))  # its special token has id 0, so every other id is moved by one
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    ours.library_threshold, ours.libraries = 10, (name,)
    assert ours.encode(PROSE) == theirs.encode(PROSE).ids
    assert ours.library_encoder.library is not None
    assert ours.library_encoder.library.name == name


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_installed_is_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # so that its import fails
    assert LIBRARIES[name]([], {}, "gpt2") is None


@pytest.mark.parametrize("libraries", [("gigatoken",), ("tiktoken",), ("gigatoken", "tiktoken"), ()])
def test_the_ids_do_not_depend_on_the_libraries(libraries: tuple[str, ...]) -> None:
    tokenizer = make_tokenizer()
    tokenizer.libraries, tokenizer.library_threshold = libraries, 0
    texts = [PROSE, "", "漢字 👍", f"a{NEW_CHARACTER}b {NEW_CHARACTER}", "a" * 6000, " " * 6000 + "x"]
    expected = [tokenizer.encode_in_python(text) for text in texts]
    assert to_lists(tokenizer.encode_to_arrays(texts)) == expected
    assert [tokenizer.encode(text) for text in texts] == expected
    found = tokenizer.library_encoder.library
    assert (found and found.name) == (libraries[0] if libraries else None)
    with pytest.raises(DataError, match=r"U\+D83D"):
        tokenizer.encode_to_arrays(["ab", "ab \ud83d"])


class RecordingLibrary:
    """A library that keeps the texts it is given, and returns wrong ids for some of them."""

    name = "recording"

    def __init__(self, tokenizer: BPETokenizer, wrong: str = "") -> None:
        self.tokenizer, self.wrong, self.texts = tokenizer, wrong, list[str]()

    def build(self, merges: Sequence[tuple[bytes, bytes]], vocab: Mapping[int, bytes], pattern: str) -> Library:
        return self

    def can_encode(self, text: str) -> bool:
        return len(text) < 5000

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.texts += texts
        found = [np.array(self.tokenizer.encode_in_python(text), np.uint32) for text in texts]
        return [ids + 1 if self.wrong and self.wrong in text else ids for text, ids in zip(texts, found, strict=True)]


def build_encoder(tokenizer: BPETokenizer, *libraries: RecordingLibrary) -> LibraryEncoder:
    builders = [library.build for library in libraries]
    vocab = {i: token for token, i in tokenizer.ids.items()}
    arguments = (tokenizer.merges, vocab, "gpt2", tokenizer.encode_in_python, tokenizer.special_tokens)
    return LibraryEncoder(*arguments, builders)


def test_a_library_gets_the_texts_that_it_can_encode_and_python_the_others() -> None:
    tokenizer = make_tokenizer()
    library = RecordingLibrary(tokenizer)
    encode = build_encoder(tokenizer, library)
    texts = ["one", "a" * 5000, f"new {NEW_CHARACTER}", "zwölf 漢字"]
    assert to_lists(encode(texts)) == [tokenizer.encode_in_python(text) for text in texts]
    assert library.texts[-2:] == ["one", "zwölf 漢字"]
    assert not {"a" * 5000, f"new {NEW_CHARACTER}"} & set(library.texts)


@pytest.mark.parametrize("wrong", ["\r\n", "they'RE", "👩‍👩‍👧", "<|endoftext|>", "wherefore"])
def test_a_library_with_other_ids_is_not_used(wrong: str) -> None:
    tokenizer = make_tokenizer()
    bad, good = RecordingLibrary(tokenizer, wrong), RecordingLibrary(tokenizer)
    text = "and wherefore not"  # the beginning of the text is compared too
    for libraries, used in (((bad, good), good), ((bad,), None)):
        encode = build_encoder(tokenizer, *libraries)
        assert to_lists(encode([text, "more"])) == [tokenizer.encode_in_python(t) for t in (text, "more")]
        assert encode.library is used


def test_tiktoken_is_left_out_for_very_long_pieces() -> None:
    tiktoken = set_up("tiktoken", make_tokenizer())
    for text in (PROSE, " " * 4999 + "x", "a" * 4999):
        assert tiktoken.can_encode(text)
    for text in (PROSE + "a" * 5000, PROSE + " " * 5000):
        assert not tiktoken.can_encode(text)


def test_merges_that_ranks_cannot_express_are_for_gigatoken_but_not_for_tiktoken() -> None:
    odd = BPETokenizer([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")])  # "abc" is "a" and "bc": tiktoken would say "abc"
    vocab = {i: token for token, i in odd.ids.items()}
    assert TiktokenEncoder.build(odd.merges, vocab, "gpt2") is None
    gigatoken = GigatokenEncoder.build(odd.merges, vocab, "gpt2")
    assert gigatoken is not None
    assert to_lists(gigatoken.encode(["abc "])) == [odd.encode_in_python("abc ")]


def test_tiktoken_is_set_up_for_a_very_long_token_in_a_second() -> None:
    doubled = [(b"a" * 2**n, b"a" * 2**n) for n in range(13)]  # a search through all pairs takes minutes
    assert tiktoken_adapter.recover_merges({b"a" * 2**n: n for n in range(14)}) == doubled


def test_gigatoken_is_loaded_anew_and_returns_the_same_ids() -> None:
    tokenizer = make_tokenizer()
    built = set_up("gigatoken", tokenizer)
    assert isinstance(built, GigatokenEncoder)
    encoder = GigatokenEncoder(built.tokenizer_json, characters_per_load=100)
    loaded = set()
    for _ in range(5):
        assert to_lists(encoder.encode(["one " * 20])) == [tokenizer.encode_in_python("one " * 20)]
        loaded.add(id(encoder._tokenizer))
    assert len(loaded) > 1


@pytest.mark.parametrize("name", LIBRARIES)
def test_several_threads_share_a_library(name: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.libraries, tokenizer.library_threshold = (name,), 0
    texts = [[make_text(3000, seed=n), PROSE[n * 50 :]] for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tokenizer.encode_to_arrays, texts))
    for arrays, two in zip(found, texts, strict=True):
        assert to_lists(arrays) == [tokenizer.encode_in_python(text) for text in two]


def test_a_short_text_needs_no_library() -> None:
    tokenizer = make_tokenizer()
    assert to_lists(tokenizer.encode_to_arrays(["a b"])) == [tokenizer.encode("a b")]
    assert tokenizer._library_encoder is None
