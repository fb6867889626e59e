"""A text file's bytes become the same characters whatever its encoding and however it is cut into chunks."""

import pytest

from minigpt.config import TrainingConfig
from minigpt.data.text_format import TextDecoder, TextFormat
from minigpt.errors import ConfigError, FileError


def decode(content: bytes, text_format: TextFormat, size: int) -> tuple[str, TextDecoder]:
    decoder = TextDecoder("'a.txt'", text_format)
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    return "".join([decoder.decode(chunk, is_last=False) for chunk in chunks] + [decoder.decode(b"", True)]), decoder


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "zwölf 日本"),
        ("utf-16", "日本\ufeff"),
        ("utf-16-le", "日本"),
        ("cp932", "日本語"),
        ("cp1252", "zwölf"),
    ],
)
def test_a_file_is_decoded_in_chunks(encoding: str, text: str, size: int) -> None:
    content = f"{text}\r\n{text}".encode(encoding)
    assert decode(content, TextFormat(encoding), size)[0] == f"{text}\r\n{text}"
    assert decode(content, TextFormat(encoding, "unix"), size)[0] == f"{text}\n{text}"


@pytest.mark.parametrize("size", [1, 1000])
def test_a_byte_order_mark_is_left_out_at_the_start_only(size: int) -> None:
    text, decoder = decode("\ufeffa\ufeff".encode(), TextFormat(), size)
    assert (text, decoder.has_byte_order_mark) == ("a\ufeff", True)
    assert not decode(b"a", TextFormat(), size)[1].has_byte_order_mark


@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_not_in_the_encoding_is_refused_or_replaced(size: int) -> None:
    with pytest.raises(FileError, match=r"'a.txt' is not CP932: byte 2 is 0x81; name its encoding"):
        decode(b"ab\x81", TextFormat("cp932"), size)
    text, decoder = decode(b"ab\x81", TextFormat("cp932", errors="replace"), size)
    assert (text, decoder.replaced) == ("ab\ufffd", 1)
    with pytest.raises(FileError, match=r"is not CP1252, or is binary: it has U\+0000; name its encoding"):
        decode("ab".encode("utf-16-le"), TextFormat("cp1252"), size)


@pytest.mark.parametrize("name", ["utf-9", "", "hex", "a\0b", "x" * 10_000])
def test_an_encoding_that_python_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no encoding .*: name one such as utf-8"):
        TrainingConfig(encoding=name)


def test_an_encoding_must_be_a_name() -> None:
    with pytest.raises(ConfigError, match="encoding must be a text, not 8"):
        TrainingConfig(encoding=8)  # type: ignore[arg-type]
