"""Byte-level BPE: the basic version equals the fast one, and both equal the libraries."""

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiktoken
import tokenizers
from conftest import make_text
from texts import PROSE, random_text

from minigpt.errors import ConfigError, DataError, FileError
from minigpt.finetuning.vocabulary_resize import extend_tokenizer
from minigpt.runs.exact_loss import measure_token_lengths
from minigpt.tokenizers import bpe_fast
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.bpe_basic import apply_merges, count_pairs, find_merges
from minigpt.tokenizers.byte_level import BYTE_TOKENS, PATTERNS, token_to_text

CL100K = (  # GPT-4's pattern in tiktoken
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
BYTE_IDS = {token[0]: i for i, token in enumerate(BYTE_TOKENS)}
OFFICIAL = {"gpt2": PATTERNS["gpt2"], "gpt4": CL100K}


@pytest.fixture(scope="module")
def tokenizer(text: str) -> BPETokenizer:
    return BPETokenizer.train(text + PROSE, 420, ["<|endoftext|>"])


def random_words(rng: random.Random) -> Counter[bytes]:
    letters = b"ab" if rng.random() < 0.5 else b"abcd \n"
    return Counter(bytes(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(rng.randint(1, 30)))


@pytest.mark.parametrize("seed", range(60))
def test_fast_training_finds_the_merges_of_the_basic_version(seed: int) -> None:
    words = random_words(random.Random(seed))  # few letters: many ties, many repetitions
    for size in (256, 257, 270, 400):
        assert bpe_fast.find_merges(words, size) == find_merges(words, size)


def test_fast_training_finds_the_merges_of_the_basic_version_in_prose() -> None:
    words = Counter(word.encode() for word in regex.findall(PATTERNS["gpt2"], PROSE))
    assert bpe_fast.find_merges(words, 330) == find_merges(words, 330)


def test_pairs_are_counted_as_often_as_their_words_occur() -> None:
    assert count_pairs({(1, 2, 1, 2): 3, (2, 1): 4}) == {(1, 2): 6, (2, 1): 7}


@pytest.mark.parametrize("seed", range(40))
def test_fast_encoding_returns_the_ids_of_the_basic_version(seed: int) -> None:
    rng = random.Random(seed)
    tokenizer = BPETokenizer(find_merges(random_words(rng), 256 + rng.randint(1, 60)))
    ranks = tokenizer._ranks
    for length in [*range(12), 31, 32, 33, 34, 100, 300]:
        ids = tuple(rng.choices([BYTE_IDS[byte] for byte in b"abcd \n"], k=length))
        expected = list(apply_merges(ids, ranks))
        assert bpe_fast.apply_merges(list(ids), ranks) == expected
        assert bpe_fast.apply_merges_with_heap(list(ids), ranks) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [300, 512, 900])
def test_training_equals_hugging_face_s_trainer(pattern: str, size: int) -> None:
    text = PROSE + make_text(20_000, seed=3) + random_text(random.Random(0), 20_000)
    ours = BPETokenizer.train(text, size, ["<|endoftext|>"], pattern)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([text], trainer)
    merges = json.loads(theirs.to_str())["model"]["merges"]
    assert [[token_to_text(a), token_to_text(b)] for a, b in ours.merges] == [list(merge) for merge in merges]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_encoding_equals_tiktoken_with_its_own_pattern(pattern: str) -> None:
    ours = BPETokenizer.train(PROSE + random_text(random.Random(1), 30_000), 600, pattern=pattern)
    ranks = {token: i for i, token in ours.vocab.items()}
    theirs = tiktoken.Encoding("test", pat_str=OFFICIAL[pattern], mergeable_ranks=ranks, special_tokens={})
    rng = random.Random(2)
    texts = [random_text(rng, rng.randint(1, 200)) for _ in range(1500)]
    for text in [*texts, PROSE, "", "a" * 5000, " " * 5000, "\n" * 999 + "x", "x\n", "  \n x", " \n"]:
        found = ours.encode(text)
        assert found == theirs.encode_ordinary(text), repr(text)
        assert ours.decode(found) == text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hugging_face_encodes_the_same_ids_from_our_file(pattern: str, tmp_path: Path) -> None:
    ours = BPETokenizer.train(PROSE, 500, ["<|endoftext|>", "<|end|>"], pattern)
    ours.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == ours.vocab_size
    again = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert contents_of(again) == contents_of(ours)
    rng = random.Random(3)
    for _ in range(400):
        text = random_text(rng, rng.randint(1, 120))
        ids = ours.encode(text)
        assert theirs.encode(text).ids == ids == again.encode(text)
        assert theirs.decode(ids) == text
    marked = "one<|endoftext|>two<|end|>"
    assert theirs.encode(marked).ids == ours.encode(marked, allow_special=True)


def contents_of(tokenizer: BPETokenizer) -> tuple:
    return tokenizer.merges, tokenizer.vocab, tokenizer.special_tokens, tokenizer.pattern


def test_a_tokenizer_that_hugging_face_trained_is_read(tmp_path: Path) -> None:
    theirs = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    theirs.train_from_iterator([PROSE], vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    theirs.save(str(tmp_path / "tokenizer.json"))  # its special token has id 0, so every other id is moved by one
    theirs.save_model(str(tmp_path))
    (tmp_path / "windows").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "windows" / name).write_bytes((tmp_path / name).read_bytes().replace(b"\n", b"\r\n"))
    for path in (tmp_path / "tokenizer.json", tmp_path, tmp_path / "windows"):
        ours = BPETokenizer.load(path)
        assert ours.special_tokens == {"<|endoftext|>": 0}
        assert ours.encode(PROSE) == theirs.encode(PROSE).ids
        assert ours.decode(ours.encode(PROSE)) == PROSE


MERGED = "in"
ADDED = [MERGED, "covid19", "New York", "the", "covid", "ovid19<", "ß<"]
ADDED_FIRST = ["<", ">", "in>"]  # tokenizers splits at those that are not normalized first


@pytest.fixture
def with_added_words(tmp_path: Path) -> tokenizers.Tokenizer:
    """A tokenizer to which words were added that are not special; it is in tokenizer.json too."""
    made = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    made.train_from_iterator([PROSE], vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    made.save(str(tmp_path / "tokenizer.json"))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.token_to_id(MERGED) in range(257, 400)
    theirs.add_tokens([*ADDED, *(tokenizers.AddedToken(word, normalized=False) for word in ADDED_FIRST)])
    theirs.save(str(tmp_path / "tokenizer.json"))
    return theirs


def test_words_that_were_added_to_a_vocabulary_are_tokens(
    with_added_words: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert ours.vocab_size == with_added_words.get_vocab_size()
    ours.save(tmp_path / "again.json")
    again, theirs_again = (
        kind(str(tmp_path / "again.json")) for kind in (BPETokenizer.load, tokenizers.Tokenizer.from_file)
    )
    rng = random.Random(5)
    words = [
        *map(str, ADDED),
        "covid19",
        "th",
        ">",
        "ovid19<",
        "ß<",
        " ",
        "b",
        "\n",
        "covi",
        "d19",
        "th>",
        "they",
        "漢",
    ]
    for _ in range(500):
        text = "".join(rng.choices(words, k=rng.randint(1, 12)))
        expected = with_added_words.encode(text).ids
        assert ours.encode(text) == expected == again.encode(text) == theirs_again.encode(text).ids, text
        assert ours.decode(expected) == text
    marked = "<|endoftext|>the<|endoftext|><"
    assert ours.encode(marked, allow_special=True) == with_added_words.encode(marked).ids


def test_an_added_word_has_its_bytes_and_stays_in_a_larger_vocabulary(
    with_added_words: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    i = with_added_words.token_to_id("covid19")
    assert measure_token_lengths(ours)[i].tolist() == [7, 7]
    larger, _ = extend_tokenizer(ours, ["<|user|>"])
    assert larger.encode("the covid19") == ours.encode("the covid19")
    ours.library_threshold = 10
    assert ours.encode(f"{PROSE} covid19 {PROSE}") == with_added_words.encode(f"{PROSE} covid19 {PROSE}").ids


def test_truncation_and_padding_are_read_past_with_a_word(
    with_added_words: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    with_added_words.enable_truncation(3)
    with_added_words.enable_padding(length=2000)
    with_added_words.save(str(tmp_path / "tokenizer.json"))
    with pytest.warns(UserWarning, match="which is left out: texts are encoded whole") as said:
        ours = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert ["truncation" in str(said[0].message), "padding" in str(said[1].message)] == [True, True]
    assert len(with_added_words.encode(PROSE).ids) == 2000
    with_added_words.no_truncation(), with_added_words.no_padding()
    assert ours.encode(PROSE) == with_added_words.encode(PROSE).ids


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": 259, "content": "x y", "lstrip": True}, "'x y' with lstrip, which is not supported"),
        ({"id": 259, "content": "x y", "single_word": True}, "single_word"),
        ({"id": 163, "content": "é"}, "'é' and an ordinary token of that name differ"),  # where é stands for a byte
        ({"id": 259, "content": "abc"}, "'abc' and an ordinary token of that name differ"),
        ({"id": 260, "content": "x y"}, "without gaps"),
        ({"id": 259, "content": ""}, "is empty"),
        ({"id": 259, "content": "<|x|>"}, "is named twice"),
    ],
)
def test_an_added_word_that_cannot_be_a_token_is_refused(entry: dict, message: str, tmp_path: Path) -> None:
    added = [*GOOD["added_tokens"], {"special": False, "normalized": True, **entry}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(GOOD | {"added_tokens": added}))
    with pytest.raises(FileError, match=message):
        BPETokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("text", ["a" * 200_000, "ab" * 100_000, " " * 200_000, "漢" * 70_000])
def test_letters_without_a_break_are_encoded_in_linear_time(text: str) -> None:
    tokenizer = BPETokenizer.train("a aa aaa aaaa aaaaaaaa abab ababab         漢漢漢漢 " * 3, 266)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_any_bytes_survive_encoding_and_decoding(tokenizer: BPETokenizer) -> None:
    rng = random.Random(4)
    for _ in range(300):
        content = rng.randbytes(rng.randint(0, 80)) + PROSE[: rng.randint(0, 20)].encode() + rng.randbytes(3)
        ids = tokenizer.encode_bytes(content)
        assert tokenizer.decode_bytes(ids) == content
        pieces = regex.findall(PATTERNS["gpt2"], content.decode("utf-8", "surrogateescape"))
        split = [tuple(BYTE_IDS[b] for b in piece.encode("utf-8", "surrogateescape")) for piece in pieces]
        assert ids == [i for piece in split for i in apply_merges(piece, tokenizer._ranks)]


def test_half_a_character_becomes_u_fffd_and_half_a_surrogate_pair_is_refused(tokenizer: BPETokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_bytes("é".encode()[:1])) == "�"
    with pytest.raises(DataError, match=r"U\+D83D"):
        tokenizer.encode("ab \ud83d")


def test_a_special_token_in_a_text_is_ordinary_text_unless_allowed(tokenizer: BPETokenizer) -> None:
    text = "end<|endoftext|>begin"
    end = tokenizer.special_tokens["<|endoftext|>"]
    assert end == tokenizer.vocab_size - 1
    assert end not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text, allow_special=True) == [*tokenizer.encode("end"), end, *tokenizer.encode("begin")]
    assert tokenizer.decode([end]) == "<|endoftext|>"
    longer = BPETokenizer([], ["<|a|>", "<|a|><|b|>"])
    assert longer.encode("<|a|><|b|>", allow_special=True) == [257]


@pytest.mark.parametrize("names", [["a"], ["Ġthe"], ["é"], [""], ["<x>", "<x>"], ["\ud800"]])
def test_special_tokens_that_read_like_other_tokens_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match="special token"):
        BPETokenizer.train("the the the", 256 + 3 + len(names), names)
    with pytest.raises(DataError, match="special token"):
        BPETokenizer([(b"t", b"h"), (b"th", b"e"), (b" ", b"the")], names)


def test_a_text_without_anything_to_learn_from_is_refused() -> None:
    with pytest.raises(DataError, match="the text is empty"):
        BPETokenizer.train("", 300)
    with pytest.raises(DataError, match=r"U\+D800"):
        BPETokenizer.train("ab \ud800", 257)


def test_nothing_is_learned_from_special_tokens() -> None:
    separated = BPETokenizer.train("ab<|x|>" * 50, 257, ["<|x|>"])
    assert separated.merges == []
    assert BPETokenizer.train("ab<|x|>" * 50, 258, ["<|x|>"]).merges == [(b"a", b"b")]


def test_two_processes_count_the_same_words_as_one() -> None:
    text = (PROSE + "a\n\n\nb \n c\n\td") * 3
    parts = list(bpe_fast.split_at_lines(text, 500))
    assert len(parts) > 5
    assert "".join(parts) == text
    for pattern in PATTERNS.values():
        assert [piece for part in parts for piece in regex.findall(pattern, part)] == regex.findall(pattern, text)
    assert bpe_fast.count_words(text, str.split, 2, characters_per_job=5000) == bpe_fast.count_words(text, str.split)


@pytest.mark.parametrize(
    ("size", "error"), [(255, ConfigError), (256, ConfigError), (600, DataError), (0, ConfigError)]
)
def test_an_impossible_vocabulary_size_is_refused(size: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\b257\b|merges for"):
        BPETokenizer.train("abcabc", size, ["<|x|>"])


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="gpt2, gpt4"):
        BPETokenizer([], pattern="gpt5")


def test_an_id_outside_the_vocabulary_is_refused(tokenizer: BPETokenizer) -> None:
    for i in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=str(i)):
            tokenizer.decode([i])


GOOD = json.loads(BPETokenizer([(b"a", b"b"), (b"ab", b"c")], ["<|x|>"]).to_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "damaged"),
        ({"model": GOOD["model"] | {"type": "Unigram"}}, "Unigram"),
        ({"model": GOOD["model"] | {"byte_fallback": True}}, "byte_fallback"),
        ({"model": GOOD["model"] | {"merges": [["ab", "c"], ["a", "b"]]}}, "before one of them is a token"),
        ({"model": GOOD["model"] | {"merges": [["a", "b"]]}}, "only one of vocabulary and merges"),
        ({"model": GOOD["model"] | {"merges": [["a"]]}}, "damaged"),
        ({"model": GOOD["model"] | {"vocab": GOOD["model"]["vocab"] | {"abc": 300}}}, "without gaps"),
        ({"model": GOOD["model"] | {"vocab": GOOD["model"]["vocab"] | {"abc": "257"}}}, "no id"),
        ({"model": GOOD["model"] | {"vocab": GOOD["model"]["vocab"] | {"漢": 257}}}, "not byte-level"),
        ({"normalizer": {"type": "NFC"}}, "normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "GPT-2's and GPT-4's"),
        ({"pre_tokenizer": None}, "GPT-2's and GPT-4's"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}, "damaged"),
        ({"post_processor": {"type": "TemplateProcessing"}}, "adds tokens"),
        ({"model": GOOD["model"] | {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix"),
        ({"model": GOOD["model"] | {"merges": [["a", "b"], ["ab", "c"], ["a", "b"]]}}, "a merge twice"),
        ({"pre_tokenizer": GOOD["pre_tokenizer"] | {"add_prefix_space": True}}, "GPT-2's and GPT-4's"),
    ],
)
def test_a_tokenizer_json_that_is_unsupported_or_damaged_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(FileError, match=message) as refused:
        BPETokenizer.load(path)
    assert str(path) in str(refused.value)


def test_a_tokenizer_json_need_not_name_the_type_of_its_model(tmp_path: Path) -> None:
    model = {name: value for name, value in GOOD["model"].items() if name != "type"}  # as in the original GPT-2's file
    (tmp_path / "tokenizer.json").write_text(json.dumps(GOOD | {"model": model}))
    assert BPETokenizer.load(tmp_path / "tokenizer.json").merges == [(b"a", b"b"), (b"ab", b"c")]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"nothing", b'{"model": {}}', b"[" * 9999])
def test_a_file_that_is_not_a_tokenizer_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(FileError):
        BPETokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(FileError):
        BPETokenizer.load(tmp_path / "absent.json")


def test_the_bytes_have_the_order_and_the_characters_of_gpt2() -> None:
    assert [token_to_text(token) for token in BYTE_TOKENS] == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert len(set(BYTE_TOKENS)) == 256
    assert all(a < b for a, b in pairwise(token_to_text(token) for token in BYTE_TOKENS))
