"""The character tokenizer."""

import json
import random
from pathlib import Path

import pytest

from minigpt.errors import DataError, FileError, MinigptError, UnknownCharacterError
from minigpt.tokenizers.char import CharTokenizer

AWKWARD = [
    "hello",
    "one\r\ntwo\rthree\n",
    "tab\there \u00a0\u3000",
    "emoji 👩‍👩‍👧 🏳️‍🌈 and e\u0301 beside \u00e9",
    "line\u2028paragraph\u2029next\x85",
    "\ufeffmark first, \x1b[31m escape, \x7f",
    'quotes " \\ and / and \\u0041',
    "漢字かな العربية 𝔘",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_saved_tokenizer_decodes_what_it_encoded(text: str, tmp_path: Path) -> None:
    tokenizer = CharTokenizer.from_text(text)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = CharTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.stoi == tokenizer.stoi
    assert loaded.itos == tokenizer.itos
    assert loaded.decode(tokenizer.encode(text)) == text


def test_random_unicode_survives_encoding_and_decoding() -> None:
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(1, 200)))
        tokenizer = CharTokenizer.from_text(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.vocab_size == len(set(text))


def test_ids_follow_the_sorted_characters() -> None:
    tokenizer = CharTokenizer.from_text("cab\nC")
    assert tokenizer.stoi == {"\n": 0, "C": 1, "a": 2, "b": 3, "c": 4}
    assert [tokenizer.itos[i] for i in range(5)] == ["\n", "C", "a", "b", "c"]
    assert tokenizer.encode("abc") == [2, 3, 4]


def test_an_unknown_character_is_refused_with_its_position() -> None:
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9\) at position 3") as caught:
        CharTokenizer.from_text("abc").encode("abcé")
    assert (caught.value.character, caught.value.position) == ("é", 3)


@pytest.mark.parametrize("ids", [[3], [-1], [0, 1, 99]])
def test_an_id_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    with pytest.raises(DataError, match=f"the id {ids[-1]} is not a token: ids run from 0 to 2"):
        CharTokenizer.from_text("abc").decode(ids)


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        CharTokenizer.from_text("")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'["a", "b"]',
        json.dumps({"format": 2, "kind": "char", "characters": ["a"]}).encode(),
        json.dumps({"format": 1, "kind": "bpe", "characters": ["a"]}).encode(),
        json.dumps({"format": 1, "kind": "char"}).encode(),
        json.dumps({"format": 1, "kind": "char", "characters": "ab"}).encode(),
        json.dumps({"format": 1, "kind": "char", "characters": ["a", "bc"]}).encode(),
        json.dumps({"format": 1, "kind": "char", "characters": ["a", 1]}).encode(),
        json.dumps({"format": 1, "kind": "char", "characters": ["a", "a"]}).encode(),
        json.dumps({"format": 1, "kind": "char", "characters": []}).encode(),
    ],
)
def test_a_file_that_is_not_a_character_tokenizer_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(FileError, match=r"tokenizer\.json"):
        CharTokenizer.load(tmp_path / "tokenizer.json")


def test_every_error_is_a_minigpt_error() -> None:
    with pytest.raises(MinigptError):
        CharTokenizer.from_text("abc").encode("x")
