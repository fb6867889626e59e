"""A run from Python."""

from pathlib import Path

import pytest
import torch
from conftest import TINY

import minigpt
from minigpt.config import Config
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError, DataError, DeviceError, FileError, OutOfMemoryError, UnknownCharacterError
from minigpt.model.gpt import GPT
from minigpt.model.loss import compute_exact_loss
from minigpt.runs.run import Run


def test_what_was_trained_is_what_is_loaded(trained: Run, text: str) -> None:
    loaded = minigpt.load(trained.path)
    assert loaded.config == trained.config
    assert loaded.info == trained.info
    assert loaded.metrics == trained.metrics
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name
    assert loaded.generate("KEEPER:", seed=1) == trained.generate("KEEPER:", seed=1)


def test_the_record_tells_the_truth(trained: Run, text: str) -> None:
    ids = trained.tokenizer.encode(text)
    held_out = Dataset(ids, trained.config).val
    assert trained.info.validation_loss == pytest.approx(compute_exact_loss(trained.model, held_out), rel=1e-6)
    assert trained.info.validation_loss < trained.metrics[0].validation_loss - 0.3  # it has learned something
    assert trained.info.parameters == sum(p.numel() for p in trained.model.parameters())
    assert trained.info.data_characters == len(text)
    assert trained.info.status == "finished"
    assert [m.step for m in trained.metrics] == [0, 20, 40, 60]
    assert trained.metrics[-1].characters == 60 * 8 * 16
    files = {file.name for file in trained.path.iterdir()} - {"best.safetensors", "checkpoints", ".lock"}
    assert files == {
        *("config.toml", "tokenizer.json", "model.safetensors", "metrics.jsonl"),
        *("snapshots.jsonl", "samples.txt", "loss.png", "run.json"),
    }
    assert (trained.path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_generate_is_the_prompt_and_the_stream(trained: Run) -> None:
    settings = {"max_new_tokens": 50, "temperature": 0.8, "top_k": 10, "top_p": 0.9, "seed": 4}
    pieces = list(trained.stream("GULL:", **settings))
    assert len(pieces) == 50
    assert trained.generate("GULL:", **settings) == "GULL:" + "".join(pieces)
    assert trained.generate("GULL:", **settings | {"seed": 5}) != trained.generate("GULL:", **settings)


def test_two_streams_at_once_leave_the_threads_as_they_were(trained: Run) -> None:
    before = torch.get_num_threads()
    first, second = trained.stream(max_new_tokens=3), trained.stream(max_new_tokens=5)
    for _ in zip(first, second, strict=False):
        assert torch.get_num_threads() == before
    assert len(list(second)) == 2
    assert torch.get_num_threads() == before


def test_without_a_prompt_it_starts_from_a_newline(trained: Run) -> None:
    assert "\n" + trained.generate(seed=2, max_new_tokens=30) == trained.generate("\n", seed=2, max_new_tokens=30)


def test_without_a_newline_it_starts_from_token_0(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "flat.txt").write_text(text_file.read_text().replace("\n", " "))
    run = minigpt.train("bigram", data=tmp_path / "flat.txt", out=tmp_path / "run", max_iters=1)
    assert run.tokenizer.itos[0] == " "
    assert " " + run.generate(seed=2, max_new_tokens=30) == run.generate(" ", seed=2, max_new_tokens=30)


def test_several_texts_differ_and_repeat(trained: Run) -> None:
    texts = trained.generate_several(3, "GULL:", max_new_tokens=40, seed=1)
    assert len(set(texts)) == 3
    assert all(text.startswith("GULL:") and len(text) == 45 for text in texts)
    assert texts == trained.generate_several(3, "GULL:", max_new_tokens=40, seed=1)


def test_the_loss_of_a_text(trained: Run, text: str) -> None:
    ids = torch.tensor(trained.tokenizer.encode(text[:500]))
    assert trained.loss(text[:500]) == pytest.approx(compute_exact_loss(trained.model, ids))
    with pytest.raises(DataError, match="at least 2"):
        trained.loss("a")
    with pytest.raises(UnknownCharacterError):
        trained.loss("é is unknown")


def test_evaluation_keeps_to_what_the_run_has_not_seen(trained: Run, text_file: Path, tmp_path: Path) -> None:
    by_itself = trained.evaluate()
    assert by_itself.loss == pytest.approx(trained.info.validation_loss, rel=1e-6)
    assert (by_itself.split, by_itself.characters) == ("validation split", 2000)
    moved = tmp_path / "moved.txt"
    moved.write_bytes(text_file.read_bytes())
    assert trained.evaluate(moved).loss == by_itself.loss
    moved.write_text(text_file.read_text()[:3000])
    other = trained.evaluate(moved)
    assert (other.split, other.characters) == ("whole text", 3000)
    assert other.loss == trained.loss(text_file.read_text()[:3000])


def test_a_training_text_that_has_changed_is_not_evaluated(text_file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(text_file.read_bytes())
    run = minigpt.train("bigram", data=mine, out=tmp_path / "run", max_iters=1)
    mine.write_text(mine.read_text()[:-1])
    with pytest.raises(DataError, match="is not the text that"):
        run.evaluate()


def test_settings_and_devices_that_cannot_be(trained: Run, text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        trained.stream("a", temperature=-1)  # at once, not at the first piece
    with pytest.raises(ConfigError, match="no setting 'temprature'; did you mean 'temperature'"):
        trained.generate("a", temprature=1)
    with pytest.raises(OutOfMemoryError, match="lower num_samples"):
        trained.generate_several(2**62, max_new_tokens=1)
    with pytest.raises(FileError, match="null"):
        trained.evaluate("a\0b")
    with pytest.raises(UnknownCharacterError):
        trained.stream("é")
    with pytest.raises(ConfigError, match="vocab_size is only for the tokenizers bpe and sentencepiece"):
        minigpt.train(data=text_file, out=tmp_path / "run", vocab_size=3)
    with pytest.raises(ConfigError, match="did you mean 'max_iters'"):
        minigpt.train(data=text_file, out=tmp_path / "run", max_iter=3)
    with pytest.raises(ConfigError, match="weights must be one of last, best, not 'bset'"):
        minigpt.load(trained.path, weights="bset")
    with pytest.raises(ConfigError, match="num_samples must be a whole number at least 1, not 0"):
        trained.generate_several(0)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"'cuda' is not available on this machine: choose from .*cpu"):
            minigpt.train(data=text_file, out=tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_the_config_and_the_fast_model_are_there(trained: Run) -> None:
    settings = TINY | {"vocab_size": trained.tokenizer.vocab_size, "snapshots": 3, "device": "cpu", "threads": 1}
    settings |= {"compiled_loops": "off"}  # too short to compile them
    assert trained.config == Config().override(**settings)
    assert isinstance(trained.model, GPT)
    assert not trained.model.training
