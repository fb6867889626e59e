"""A server with small runs of every kind, which the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, start_server
from random_runs import make_random_run

import minigpt
from minigpt.runs.run import Run
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.web.served_runs import ServedRuns

HOSTILE_NAME = "<script>alert(1)</script>".replace("/", "_")


@pytest.fixture(scope="session")
def served_folder(trained: Run, text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: chars, modern, bigram, bpe, chat, a broken one, and one with a hostile name."""
    folder = tmp_path_factory.mktemp("served")
    chars = CharTokenizer.from_text(text)
    make_random_run(folder / "chars", chars, block_size=32)
    make_random_run(folder / "modern", chars, block_size=32, architecture="modern")
    make_random_run(folder / "bigram", chars, architecture="bigram", block_size=8)
    make_random_run(folder / "bpe", BPETokenizer.train(text, 300), block_size=32)
    make_random_run(folder / "chat", CharTokenizer(chars.stoi, CHAT_TOKENS), block_size=64)
    make_random_run(folder / HOSTILE_NAME, chars, block_size=16)
    make_random_run(folder / "broken", chars, block_size=16)
    (folder / "broken" / "tokenizer.json").write_text("{")
    return folder


@pytest.fixture(scope="session")
def server(trained: Run, served_folder: Path) -> Iterator[LiveServer]:
    """The runs of `served_folder`, and the trained run as `trained`."""
    with start_server(ServedRuns([trained.path], served_folder)) as live:
        yield live


@pytest.fixture(scope="session")
def chars_run(served_folder: Path) -> Run:
    return minigpt.load(served_folder / "chars")
