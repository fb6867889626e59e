"""Preparation: shards have the ids of the documents, an interruption loses nothing, and damage is refused."""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import fault_injection
import numpy as np
import pytest
from texts import PROSE, random_text

from minigpt.data.document_split import Passage, hash_to_fraction
from minigpt.data.prepare import PrepareSettings, prepare_corpus
from minigpt.data.prepared_data import PreparedData
from minigpt.data.shard_writer import lock_folder, write_shards
from minigpt.data.shards import INDEX, Index
from minigpt.data.tokenizer_training import build_char_tokenizer, sample_texts
from minigpt.errors import ConfigError, DataError, FileError
from minigpt.tokenizers.base import END_OF_TEXT
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.sentencepiece import SentencePieceTokenizer

rng = random.Random(11)
DOCUMENTS = [PROSE[start : start + rng.randint(1, 900)] for start in range(0, len(PROSE), 700)] + [
    random_text(rng, 300) for _ in range(20)
]


class RecordingProgress:
    """Keeps the messages; raises KeyboardInterrupt at a message that begins with `stop_at`."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.stop_at = stop_at
        self.messages: list[str] = []

    def say(self, text: str) -> None:
        self.messages.append(text)
        if self.stop_at and text.startswith(self.stop_at):
            raise KeyboardInterrupt

    def begin(self, title: str, total: int) -> None:
        pass

    def update(self, position: int) -> None:
        pass


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    return path


SIZES = ("part_characters", "batch_characters", "parallel_from_bytes")


def make(paths: object, out: Path, processes: int = 1, **settings: object) -> PreparedData:
    paths = paths if isinstance(paths, list) else [paths]
    sizes = {name: settings.pop(name) for name in SIZES if name in settings}
    prepare_corpus(paths, out, PrepareSettings(**settings), RecordingProgress(), processes, **sizes)
    return PreparedData(out)


def documents_in(data: PreparedData, split: str) -> list[str]:
    """The texts that the ids stand for."""
    ids = getattr(data, split)[:]
    ends = np.flatnonzero(ids == data.index.end_of_text)
    assert ends[-1] == len(ids) - 1
    starts = [0, *(ends[:-1] + 1)]
    return [data.tokenizer.decode(ids[start:end]) for start, end in zip(starts, ends, strict=True)]


@pytest.mark.parametrize(
    "settings",
    [{}, {"tokenizer": "bpe", "vocab_size": 400}, {"tokenizer": "sentencepiece", "vocab_size": 500}],
    ids=["char", "bpe", "sentencepiece"],
)
def test_every_document_is_encoded_in_its_split_and_in_order(settings: dict, lines: Path, tmp_path: Path) -> None:
    texts = [*DOCUMENTS[:-20], "漢字 é 👍"] if settings.get("tokenizer") == "sentencepiece" else DOCUMENTS
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = make(lines, tmp_path / "out", train_fraction=0.8, **settings)
    for split in ("train", "val"):
        expected = [text for text in texts if (hash_to_fraction(text) < 0.8) == (split == "train")]
        assert documents_in(data, split) == expected
        ids = [i for text in expected for i in [*data.tokenizer.encode(text), data.index.end_of_text]]
        assert getattr(data, split)[:].tolist() == ids
    index = data.index
    assert (index.total("documents"), index.total("characters")) == (len(texts), sum(map(len, texts)))
    assert index.total("bytes") == sum(len(text.encode()) for text in texts)


def test_every_character_of_a_long_text_is_in_one_split(tmp_path: Path) -> None:
    text = "".join(random_text(random.Random(seed), 3000) for seed in range(60))
    (tmp_path / "book.txt").write_text(text, newline="")
    data = make(tmp_path / "book.txt", tmp_path / "out")
    found = documents_in(data, "train") + documents_in(data, "val")
    assert sum(map(len, found)) == len(text)
    assert all(piece in text for piece in found)
    assert 0.05 < len(data.val) / (len(data.train) + len(data.val)) < 0.15


def test_several_processes_and_parts_write_the_same_ids(lines: Path, tmp_path: Path) -> None:
    one = make(lines, tmp_path / "one", tokenizer="bpe", vocab_size=400)
    sizes = {"part_characters": 6000, "batch_characters": 1000, "parallel_from_bytes": 0}
    several = make(lines, tmp_path / "several", processes=2, tokenizer="bpe", vocab_size=400, **sizes)
    assert len(several.index.parts) == 3
    for split in ("train", "val"):
        assert np.array_equal(getattr(one, split)[:], getattr(several, split)[:])
    assert one.index.tokenizer_sha256 == several.index.tokenizer_sha256


def test_an_interrupted_preparation_continues_without_repeating_finished_parts(lines: Path, tmp_path: Path) -> None:
    whole = make(lines, tmp_path / "whole", part_characters=6000)
    out, messages = tmp_path / "stopped", []
    for number in range(len(whole.index.parts)):
        progress = RecordingProgress(stop_at=f"part {number + 1}:")
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus([lines], out, PrepareSettings(), progress, part_characters=6000)
        messages += progress.messages
        (out / ".train-00009.bin.tmp").write_bytes(b"half a shard")
        with pytest.raises(DataError, match="is not finished: run the same minigpt data prepare again"):
            PreparedData(out)
    make(lines, out, part_characters=6000)
    assert [message.split(":")[0] for message in messages] == [f"part {n + 1}" for n in range(len(whole.index.parts))]
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in out.iterdir()} == files
    for name in files - {".lock"}:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    progress = RecordingProgress()
    prepare_corpus([lines], out, PrepareSettings(), progress)
    assert progress.messages == [f"{str(out)!r} is finished: nothing to do"]


def test_a_preparation_killed_at_any_write_continues(tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS * 4))
    assert fault_injection.preparation("whole", 1).finish(tmp_path, (0, "count")) == 0
    operations = int((tmp_path / "operations").read_text())
    whole = tmp_path / "whole"
    assert len(Index.read(whole).parts) > 5
    kept: dict[str, int] = {}
    moments = random.Random(0)
    for processes in (1, 2, 1, 2):
        fault = (moments.randint(operations // 8, operations // 3), "kill")
        assert fault_injection.preparation("out", processes).finish(tmp_path, fault) == -signal.SIGKILL
        if (tmp_path / "out" / INDEX).exists():
            index = Index.read(tmp_path / "out")
            shards = {shard.name for split in ("train", "val") for shard in index.shards(split)}
            now = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in shards}
            assert kept.items() <= now.items()  # what was finished is not written again
            kept = now
    assert kept
    assert fault_injection.preparation("out", 1).finish(tmp_path) == 0
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept} == kept
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name


def test_documents_stay_in_their_split_when_files_are_added(lines: Path, tmp_path: Path) -> None:
    before = make(lines, tmp_path / "before")
    (tmp_path / "a first file.txt").write_text("Another document, which is read before the others.")
    after = make([tmp_path / "a first file.txt", lines], tmp_path / "after")
    for split in ("train", "val"):
        assert set(documents_in(before, split)) <= set(documents_in(after, split))


def test_rare_characters_become_the_unknown_character_only_with_min_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    texts = [f"aaaa bbbb {i % 7} ß" if i == 3 else f"aaaa bbbb {i % 7}" for i in range(100)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    kept = make(path, tmp_path / "kept")
    assert "ß" in kept.tokenizer.stoi
    assert kept.tokenizer.unknown is None
    rare = make(path, tmp_path / "rare", min_count=2)
    assert "ß" not in rare.tokenizer.stoi
    found = documents_in(rare, "train") + documents_in(rare, "val")
    assert sorted(found) == sorted(text.replace("ß", "\ufffd") for text in texts)
    assert rare.tokenizer.encode("aß€") == [rare.tokenizer.stoi["a"], *[rare.tokenizer.stoi["\ufffd"]] * 2]


def test_the_sample_of_a_large_corpus_is_bounded_and_always_the_same() -> None:
    texts = [f"{i} " + "x" * 98 for i in range(3000)]
    pieces = [Passage(text, "train", True, True, "") for text in texts]
    pieces[5] = Passage(texts[5], "val", True, True, "")
    found = sample_texts(pieces, 50_000)
    assert 20_000 < sum(map(len, found)) <= 50_000
    assert found == sample_texts(pieces, 50_000)
    assert sample_texts(pieces, 10**9) == texts[:5] + texts[6:]
    assert build_char_tokenizer(pieces).stoi.keys() == set("0123456789 x")


def test_a_trained_tokenizer_can_be_named(lines: Path, tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(PROSE, 400, [END_OF_TEXT])
    tokenizer.save(tmp_path / "tokenizer.json")
    data = make(lines, tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"))
    assert data.tokenizer.merges == tokenizer.merges
    again = make(lines, tmp_path / "again", tokenizer=str(tmp_path / "out"))  # a folder that has one
    assert again.index.tokenizer_sha256 == data.index.tokenizer_sha256
    BPETokenizer.train(PROSE, 400).save(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match=r'no token to put between documents: .*--special "<|endoftext|>"'):
        make(lines, tmp_path / "other", tokenizer=str(tmp_path / "tokenizer.json"))
    CharTokenizer(sorted(set(PROSE)), [END_OF_TEXT]).save(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match=r"documents\.jsonl': the character '.*' \(U\+.*at position"):
        make(lines, tmp_path / "other2", tokenizer=str(tmp_path / "tokenizer.json"))


def test_a_sentencepiece_model_can_have_an_end_of_text_piece(tmp_path: Path) -> None:
    tokenizer = SentencePieceTokenizer.train(PROSE, 500, end_of_text=True)
    tokenizer.save(tmp_path / "tokenizer.model")
    again = SentencePieceTokenizer.load(tmp_path / "tokenizer.model")
    end = again.special_tokens[END_OF_TEXT]
    assert end not in again.encode(END_OF_TEXT + "</s>")
    assert again.decode([*again.encode("a b"), end]) == "a b" + END_OF_TEXT


def test_a_folder_is_not_continued_with_other_settings_or_files(lines: Path, tmp_path: Path) -> None:
    make(lines, tmp_path / "out")
    for settings, error in (
        ({"train_fraction": 0.8}, "train_fraction 0.9, not 0.8"),
        ({"tokenizer": "bpe"}, "tokenizer 'char', not 'bpe'"),
        ({"errors": "replace"}, "errors 'strict', not 'replace'"),
    ):
        with pytest.raises(DataError, match=f"was started with {error}: use the same .*, or name a new --out"):
            make(lines, tmp_path / "out", **settings)
    with lines.open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(DataError, match="was prepared from other files, or they have changed since"):
        make(lines, tmp_path / "out")


def test_a_text_that_changes_during_an_interruption_is_refused(lines: Path, tmp_path: Path) -> None:
    make(lines, tmp_path / "out", part_characters=6000)
    index = Index.read(tmp_path / "out")
    Index(**{**vars(index), "finished": False, "parts": index.parts[:2]}).write(tmp_path / "out")
    lines.write_text(lines.read_text().replace("entry", "Entry", 1))
    with pytest.raises(DataError, match="the texts have changed since"):
        make(lines, tmp_path / "out", part_characters=6000)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"train_fraction": 0.0}, "train_fraction must be above 0 and below 1"),
        ({"train_fraction": float("nan")}, "train_fraction must be above 0 and below 1"),
        ({"separator": ""}, "the separator is empty"),
        ({"min_count": 0}, "min_count must be at least 1"),
        ({"min_count": 2, "tokenizer": "bpe"}, "only for characters"),
        ({"vocab_size": 300}, "vocab_size is only for"),
        ({"vocab_size": 255, "tokenizer": "bpe"}, "has 257 tokens at least, and 255 is fewer"),
        ({"vocab_size": 90_000, "tokenizer": "bpe"}, "lower the vocabulary's size"),
        ({"tokenizer": "nowhere.json"}, "no such file"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, error: str, lines: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError, FileError), match=error):
        make(lines, tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "data.json").exists()


@pytest.mark.parametrize("number", range(4))
def test_a_small_corpus_has_both_splits_whatever_its_hashes(number: int, tmp_path: Path) -> None:
    texts = [f"corpus {number}, document {n}" for n in range(3)]
    for n, text in enumerate(texts):
        (tmp_path / f"{n}.txt").write_text(text)
    data = make([tmp_path / f"{n}.txt" for n in range(3)], tmp_path / "out")
    assert sorted(documents_in(data, "train") + documents_in(data, "val")) == texts


def test_a_corpus_too_small_to_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one short document")
    with pytest.raises(DataError, match=r"of 1 documents none is left to .*minigpt train --data FILE"):
        make(tmp_path / "one.txt", tmp_path / "out")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="fewer than two different characters"):
        make(tmp_path / "blank.jsonl", tmp_path / "out2")
    with pytest.raises(DataError, match="no document to learn a vocabulary from"):
        make(tmp_path / "blank.jsonl", tmp_path / "out3", tokenizer="bpe")


def test_a_folder_with_other_files_is_refused_and_unchanged(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(FileError, match=r"is not empty, it has 'letter\.txt': name a new --out"):
        make(lines, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


def test_two_preparations_of_one_folder_at_once_are_refused(lines: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "out"), pytest.raises(FileError, match="another process is writing to"):
        make(lines, tmp_path / "out")
    make(lines, tmp_path / "out")


def test_a_damaged_folder_is_refused(lines: Path, tmp_path: Path) -> None:
    make(lines, tmp_path / "out")
    out = tmp_path / "out"
    kept = shutil.copytree(out, tmp_path / "kept")
    shard, content = out / "train-00000.bin", (out / "train-00000.bin").read_bytes()

    def altered(damage: Callable[[], object], error: str) -> None:
        damage()
        with pytest.raises((FileError, DataError), match=error):
            PreparedData(out)
        shutil.rmtree(out)
        shutil.copytree(kept, out)

    altered(lambda: shard.write_bytes(content[:-2]), r"train-00000\.bin' is cut short: it has")
    altered(lambda: shard.write_bytes(content + b"ab"), "is longer than it was")
    altered(lambda: shard.write_bytes(b"\1" + content[1:]), "has been altered: its SHA-256 is not the one in data.json")
    altered(shard.unlink, "there is no such file")
    altered(lambda: (shard.unlink(), shard.symlink_to("/dev/zero")), "is a link or a device")
    other = CharTokenizer(sorted({*PreparedData(out).tokenizer.stoi, "\0"}), [END_OF_TEXT])
    altered(lambda: other.save(out / "tokenizer.json"), "is not the tokenizer that made the shards beside it")
    index = json.loads((out / "data.json").read_text())
    first = index["parts"][0]
    for change in (
        {"format": 2},
        {"vocab_size": -1},
        {"vocab_size": True},
        {"end_of_text": 10**6},
        {"parts": 3},
        {"parts": [{**first, "train": {**first["train"], "name": "../../etc/passwd"}}]},
        {"parts": [{**first, "train": {**first["train"], "tokens": -2}}]},
        {"parts": [{**first, "documents": "many"}]},
        {"parts": [{**first, "more": 1}]},
        {"tokenizer": "/etc/passwd"},
        {"unknown": 1},
    ):
        changed = json.dumps(index | change)
        altered(lambda changed=changed: (out / "data.json").write_text(changed), r"data\.json'")
    altered(lambda: (out / "data.json").write_text("{"), "is damaged: it is not JSON")


def test_a_damaged_folder_is_not_called_finished(lines: Path, tmp_path: Path) -> None:
    make(lines, tmp_path / "out")
    (tmp_path / "out" / "val-00000.bin").unlink()
    with pytest.raises(FileError, match="val-00000"):
        make(lines, tmp_path / "out")
    os.mkfifo(tmp_path / "out" / "val-00000.bin")
    with pytest.raises(FileError, match="is a link or a device, not a shard: remove"):
        make(lines, tmp_path / "out")


def test_more_shards_than_a_process_may_have_open_are_read(lines: Path, tmp_path: Path) -> None:
    make(lines, tmp_path / "out", part_characters=300)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/proc/self/fd").iterdir()]) + 8, limits[1]))
    try:
        assert len(PreparedData(tmp_path / "out").train) > 1000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_copies_of_a_text_are_sampled_like_other_texts() -> None:
    copies = [Passage("the same page " * 20, "train", True, True, "")] * 3000
    found = sample_texts(copies, 100_000)
    assert 30_000 < sum(map(len, found)) <= 100_000


def test_a_shard_with_an_id_that_is_not_a_token_is_refused(lines: Path, tmp_path: Path) -> None:
    data = make(lines, tmp_path / "out")
    wrong = np.full(10, data.index.vocab_size, data.index.dtype).tobytes()
    shards = write_shards(tmp_path / "out", 0, iter([{"train": wrong, "val": b"\0\0"}]), data.index.dtype)
    part = data.index.parts[0]
    Index(**{**vars(data.index), "parts": (type(part)(**{**vars(part), **shards}),)}).write(tmp_path / "out")
    with pytest.raises(FileError, match=f"has the id {data.index.vocab_size}, which is not a token"):
        PreparedData(tmp_path / "out")
