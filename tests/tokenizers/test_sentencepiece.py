"""The adapter over SentencePiece."""

import io
import random
from pathlib import Path

import pytest
import sentencepiece
from texts import PROSE, random_text

from minigpt.errors import ConfigError, DataError, FileError
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(PROSE, 500, request.param)


def test_decoding_returns_the_encoded_text(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.model")
    again = SentencePieceTokenizer.load(tmp_path / "tokenizer.model")
    rng = random.Random(0)
    texts = [random_text(rng, rng.randint(1, 100)).replace("▁", "") for _ in range(600)]
    for text in [*texts, PROSE, "", " ", "  two  blanks  ", "\n\n", "\t\r\n", " lead", "trail ", "ﬁ ½ Å", "\x00"]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert again.encode(text) == ids
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_the_library_returns_the_same_ids_and_fewer_than_characters(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer.model")
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert tokenizer.vocab_size == library.vocab_size() == 500
    assert library.encode(PROSE) == tokenizer.encode(PROSE)
    assert len(tokenizer.encode(PROSE)) < 0.75 * len(PROSE)


def test_the_same_text_gives_the_same_model() -> None:
    assert SentencePieceTokenizer.train(PROSE, 400).model == SentencePieceTokenizer.train(PROSE, 400).model


def test_the_bytes_of_a_character_can_be_decoded_one_by_one(tokenizer: SentencePieceTokenizer) -> None:
    ids = tokenizer.encode("👩")
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids) == "👩".encode()


def test_text_that_the_format_cannot_express_is_refused(tokenizer: SentencePieceTokenizer) -> None:
    with pytest.raises(DataError, match=r"U\+2581.*position 3"):
        tokenizer.encode("abc▁")
    with pytest.raises(DataError, match=r"U\+2581"):
        SentencePieceTokenizer.train("abc▁" * 100, 300)
    with pytest.raises(DataError, match=r"U\+D83D"):
        tokenizer.encode("abc\ud83d")


@pytest.mark.parametrize("size", [0, 257, 100_000])
def test_an_impossible_vocabulary_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"{size:,}"):
        SentencePieceTokenizer.train(PROSE, size)


@pytest.mark.parametrize("content", [b"", b"x", b"\x00" * 100, PROSE.encode()])
def test_a_file_that_is_not_a_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.model.*not a SentencePiece model"):
        SentencePieceTokenizer.load(tmp_path / "x.model")


@pytest.mark.parametrize("options", [{}, {"byte_fallback": True}, {"normalization_rule_name": "identity"}])
def test_a_model_that_changes_the_text_is_refused(options: dict, tmp_path: Path) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE.splitlines()), model_writer=written, vocab_size=400, minloglevel=2, **options
    )
    (tmp_path / "x.model").write_bytes(written.getvalue())
    with pytest.raises(FileError, match="changes the text"):
        SentencePieceTokenizer.load(tmp_path / "x.model")


@pytest.mark.parametrize("rule", ["41\t61\n", "4E00 4E01\t62\n"])  # "A" becomes "a"; two characters become "b"
def test_a_model_that_changes_a_few_characters_is_refused(rule: str, tmp_path: Path) -> None:
    (tmp_path / "rules.tsv").write_text(rule)
    options = {"vocab_size": 400, "byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False}
    for rules in ({"normalization_rule_tsv": str(tmp_path / "rules.tsv")}, {"normalization_rule_name": "identity"}):
        written = io.BytesIO()
        lines = iter(PROSE.splitlines())
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=written, minloglevel=2, **options, **rules
        )
        if "normalization_rule_tsv" in rules:
            with pytest.raises(FileError, match="changes the text"):
                SentencePieceTokenizer(written.getvalue())
        else:
            assert SentencePieceTokenizer(written.getvalue()).encode("A")


def test_a_damaged_model_is_refused_or_still_works(tokenizer: SentencePieceTokenizer) -> None:
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(tokenizer.model)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            again = SentencePieceTokenizer(bytes(content))
        except FileError:
            continue
        assert again.decode(again.encode("sea wind")) == "sea wind"


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(DataError, match="the text is empty"):
        SentencePieceTokenizer.train("", 300)


def test_an_id_outside_the_vocabulary_is_refused(tokenizer: SentencePieceTokenizer) -> None:
    for i in (-1, 500):
        with pytest.raises(DataError, match=str(i)):
            tokenizer.decode([i])
