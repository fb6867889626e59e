"""Tokens decoded one by one give the text of all of them together."""

import random

from minigpt.tokenizers.base import decode_stream
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer

BYTES = BPETokenizer([])  # a token for each byte


def test_a_character_arrives_whole_with_its_last_token() -> None:
    ids = BYTES.encode("aé漢🙂")
    assert len(ids) == 10
    assert list(decode_stream(BYTES, iter(ids))) == ["a", "é", "漢", "🙂"]
    assert list(decode_stream(CharTokenizer("é漢"), [1, 0])) == ["漢", "é"]


def test_any_tokens_give_what_they_give_together() -> None:
    rng = random.Random(0)
    for _ in range(300):
        ids = BYTES.encode("é漢🙂")[rng.randrange(9) :] + rng.choices(range(256), k=5)
        assert "".join(decode_stream(BYTES, ids)) == BYTES.decode(ids)


def test_the_text_is_decoded_as_the_tokens_come() -> None:
    ids = iter(BYTES.encode("漢b"))
    pieces = decode_stream(BYTES, ids)
    assert next(pieces) == "漢"
    assert BYTES.decode(ids) == "b"  # not yet read


def test_a_character_that_never_ends_is_replaced_at_the_end() -> None:
    assert list(decode_stream(BYTES, BYTES.encode("a漢")[:3])) == ["a", "�"]
    assert list(decode_stream(BYTES, [])) == []
