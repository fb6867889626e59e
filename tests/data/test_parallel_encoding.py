"""Batches of passages are encoded to the same bytes in one thread, several threads and several processes."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_text
from texts import PROSE

from minigpt.data.document_split import Passage
from minigpt.data.parallel_encoding import EncodedBatch, start_encoder
from minigpt.errors import DataError
from minigpt.tokenizers.base import END_OF_TEXT
from minigpt.tokenizers.bpe import BPETokenizer

TEXTS = [PROSE[:700], "zwölf 漢字 👍\r\n", "<|endoftext|>", "", make_text(900, seed=1), "a" * 6000, "\U0003fffe x"]
BATCHES = [
    [
        Passage(text, "val" if n % 3 == 1 else "train", n % 2 == 0, n % 2 == 0, f"{n}.txt")
        for n, text in enumerate(texts)
    ]
    for texts in (TEXTS, TEXTS[::-1], [])
]


def encode(tokenizer: BPETokenizer, file: Path, processes: int) -> list[EncodedBatch]:
    with start_encoder(file, tokenizer, np.dtype("<u2"), processes) as encode_batches:
        return list(encode_batches(BATCHES))


@pytest.mark.parametrize("libraries", [("gigatoken",), ("tiktoken",), ()])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_bytes_do_not_depend_on_libraries_and_processes(
    libraries: tuple[str, ...], processes: int, tmp_path: Path
) -> None:
    tokenizer = BPETokenizer.train(PROSE, 500, [END_OF_TEXT])
    tokenizer.save(tmp_path / "tokenizer.json")
    tokenizer.libraries = libraries
    end = tokenizer.special_tokens[END_OF_TEXT]
    expected = []
    for batch in BATCHES:
        ids: dict[str, list[int]] = {"train": [], "val": []}
        for passage in batch:
            ids[passage.split] += tokenizer.encode_in_python(passage.text) + [end] * passage.ends_run
        expected.append({split: np.array(found, "<u2").tobytes() for split, found in ids.items()})
    assert encode(tokenizer, tmp_path / "tokenizer.json", processes) == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_a_text_that_cannot_be_encoded_is_named(processes: int, tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(PROSE, 300, [END_OF_TEXT])
    batch = [Passage("good", "train", True, True, "good.txt"), Passage("half \ud83d", "train", True, True, "bad.txt")]
    message = r"'bad\.txt': the text has half a surrogate pair, U\+D83D"
    with start_encoder(tmp_path, tokenizer, np.dtype("<u2"), processes) as run, pytest.raises(DataError, match=message):
        list(run([batch]))
