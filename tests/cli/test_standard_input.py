"""Standard input of chat, sample and tokenizer: not UTF-8, closed, with CRLF, with a byte order mark."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt.cli.main import run
from minigpt.cli.standard_input import MAX_LINE, decode_line, iterate_lines
from minigpt.runs.run import Run
from minigpt.tokenizers.bpe import BPETokenizer

MARK = b"\xef\xbb\xbf"
Answer = tuple[int, str, str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Answer]:
    """Return a function that runs the command line here, with `content` on standard input; None closes it."""

    def call_with(content: bytes | None, *arguments: object) -> Answer:
        monkeypatch.setattr(sys, "stdin", None if content is None else io.TextIOWrapper(io.BytesIO(content)))
        status = run([*map(str, arguments)])
        return status, *capsys.readouterr()

    return call_with


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "bytes.json"
    BPETokenizer([]).save(path)
    return path


def test_the_chat_explains_a_line_that_is_no_text_and_goes_on(trained: Run, call: Callable[..., Answer]) -> None:
    lines = b"caf\xe9\nGULL:\n" + b"a" * (MAX_LINE + 1) + b"\nsea\n"
    status, out, err = call(lines, "chat", trained.path, "--max-new-tokens", "4", "--seed", "1")
    assert status == 0
    assert "the line is not UTF-8: byte 3 is 0xe9" in err
    assert "the line is longer than 1,048,576 bytes" in err
    assert out == call(b"GULL:\nsea\n", "chat", trained.path, "--max-new-tokens", "4", "--seed", "1")[1] != ""


def test_the_chat_reads_the_lines_of_windows(trained: Run, call: Callable[..., Answer]) -> None:
    flags = ("chat", trained.path, "--max-new-tokens", "4", "--seed", "1")
    status, out, err = call(MARK + b"GULL:\r\n/quit\r\nnever\r\n", *flags)
    assert status == 0
    assert "begins with a byte order mark (U+FEFF), which is left out" in err
    assert out == call(b"GULL:\n", *flags)[1] != ""


@pytest.mark.parametrize("command", ["chat RUN", "sample RUN --prompt -", "tokenizer encode RUN -"])
def test_a_closed_standard_input_is_named(trained: Run, call: Callable[..., Answer], command: str) -> None:
    status, out, err = call(None, *command.replace("RUN", str(trained.path)).split())
    assert (status, out) == (2, "")
    assert err == (
        "minigpt: standard input is closed: type the text in a terminal, or send it through a pipe or from a file\n"
    )


def test_the_tokenizer_keeps_line_ends_and_drops_a_byte_order_mark(
    tokenizer_file: Path, call: Callable[..., Answer]
) -> None:
    status, out, err = call(MARK + b"a\r\nb", "tokenizer", "encode", tokenizer_file, "-")
    assert status == 0
    assert "byte order mark" in err
    ids = " ".join(map(str, BPETokenizer([]).encode("a\r\nb")))
    assert out == ids + "\n"
    status, out, err = call(MARK + ids.replace(" ", "\r\n").encode(), "tokenizer", "decode", tokenizer_file, "-")
    assert (status, out) == (0, "a\r\nb\n")
    assert call(b"caf\xe9", "tokenizer", "encode", tokenizer_file, "-")[0] == 2
    shown = call(MARK + b"ab", "tokenizer", "show", tokenizer_file, "--limit", "0", "--text", "-")
    assert "a|b\n" in shown[1]


def test_a_byte_order_mark_is_dropped_from_the_first_line_only() -> None:
    lines = list(iterate_lines(io.BytesIO(MARK + b"a\n" + MARK + b"b\r\n\nc")))
    assert [decode_line(line) for line in lines] == ["a", "\ufeffb", "", "c"]


def test_a_line_of_the_largest_size_is_read() -> None:
    sizes = [MAX_LINE, MAX_LINE - 1, 9]
    lines = list(iterate_lines(io.BytesIO(b"\r\n".join(b"a" * size for size in sizes))))
    assert [len(decode_line(line)) for line in lines] == sizes


def test_standard_input_that_cannot_be_read_ends_the_chat(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    with (tmp_path / "only-written").open("wb") as file:
        monkeypatch.setattr(sys, "stdin", os.fdopen(file.fileno(), closefd=False))
        assert run(["chat", str(trained.path)]) == 2
    assert "minigpt: cannot read 'standard input': Bad file descriptor\n" in capsys.readouterr().err
