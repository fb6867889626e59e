"""A large text becomes an array of the ids that `encode` returns, part by part."""

import numpy as np
import pytest
from texts import PROSE

from minigpt.data.array_encoding import build_array_encoder, encode_text
from minigpt.data.shards import choose_id_type
from minigpt.errors import DataError, UnknownCharacterError
from minigpt.tokenizers.added_tokens import AddedToken
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

TEXT = f"{PROSE}\n\n\r\n  a \n b\n漢字 é 👍\n{PROSE[::-1]}"
BPE = BPETokenizer.train(TEXT, 500)


def make_tokenizer(name: str) -> Tokenizer:
    if name == "char":
        return CharTokenizer.from_text(TEXT)
    if name == "sentencepiece":
        return SentencePieceTokenizer.train(TEXT, 600)
    if name == "bpe with an added word":
        return BPETokenizer(BPE.merges, added_tokens=[AddedToken("b\n漢", BPE.vocab_size, True)])
    tokenizer = BPETokenizer(BPE.merges)
    tokenizer.libraries = () if name == "bpe in Python" else tokenizer.libraries
    return tokenizer


@pytest.mark.parametrize("name", ["char", "bpe", "bpe in Python", "bpe with an added word", "sentencepiece"])
def test_the_ids_are_those_of_the_whole_text(name: str) -> None:
    tokenizer = make_tokenizer(name)
    for size in (1, 100, 10**6):
        ids = encode_text(tokenizer, TEXT, size)
        assert ids.dtype == np.uint16
        assert ids.tolist() == tokenizer.encode(TEXT)
        assert len(encode_text(tokenizer, "", size)) == 0


def test_an_unknown_character_is_refused_with_its_position_in_the_whole_text() -> None:
    tokenizer = CharTokenizer.from_text("abc")
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9\) at position 13"):
        encode_text(tokenizer, "abcabcabcabcaéébéc", 5)
    with pytest.raises(DataError, match=r"U\+D83D"):
        encode_text(BPE, "ab\nc\ud83d\nd", 2)


def test_a_short_text_needs_no_library() -> None:
    tokenizer = BPETokenizer(BPE.merges)
    encode_text(tokenizer, TEXT)
    assert tokenizer._library_encoder is None


def test_characters_are_looked_up_as_the_tokenizer_does() -> None:
    tokenizer = CharTokenizer(sorted(set("hello wörld👍")), [END_OF_TEXT])
    texts = ["hello", "", "wörld 👍"]
    found = build_array_encoder(tokenizer)(texts)
    assert [ids.tolist() for ids in found] == [tokenizer.encode(text) for text in texts]
    lenient = CharTokenizer(sorted(set("helo\ufffd")), (), "\ufffd")
    assert build_array_encoder(lenient)(["heXlo"])[0].tolist() == lenient.encode("heXlo")


def test_two_bytes_hold_the_ids_of_at_most_65536_tokens() -> None:
    assert [choose_id_type(size).itemsize for size in (2, 2**16, 2**16 + 1)] == [2, 2, 4]
