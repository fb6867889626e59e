"""The ladder: measurements, interruption, refusals, reports."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_process import CommandProcess
from conftest import TINY

import minigpt
from minigpt.config import Config
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.errors import DataError, DeviceError, DivergedError, RunError
from minigpt.model.ngram import NGramModel
from minigpt.studies.ladder.directory import Ladder, LadderDirectory
from minigpt.studies.ladder.experiment import LadderExperiment, run_ladder
from minigpt.studies.ladder.report import describe_difference, format_markdown, format_terminal_lines
from minigpt.studies.ladder.rungs import FULL, RUNGS
from minigpt.tokenizers.char import CharTokenizer

CONFIG = Config().override(**TINY, device="cpu")
SHORT = {"sample_tokens": 40, "compared_tokens": 200}
# The ladder does not evaluate during training. The test that uses the flags sets max_iters itself.
SET_BY_FLAGS = TINY.keys() - {"eval_interval", "eval_windows", "snapshots", "max_iters"}
FLAGS = [word for name in SET_BY_FLAGS for word in (f"--{name.replace('_', '-')}", str(TINY[name]))]
Measured = tuple[Ladder, Path]


@pytest.fixture(scope="module")
def measured_ladder(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("ladders") / "ladder"
    return run_ladder(CONFIG, text_file, folder, seeds=2, **SHORT), folder


def test_the_ladder_measures_every_rung_with_every_seed(measured_ladder: Measured) -> None:
    ladder, folder = measured_ladder
    measured = [(result.number, result.seed) for result in ladder.rungs]
    assert measured == [(n, 1337) for n in range(3)] + [(n, seed) for n in range(3, 11) for seed in (1337, 1338)]
    assert [row.result.name for row in ladder.summarize()] == [rung.name for rung in RUNGS]
    assert [result.number for result in ladder.ngrams] == [3, 4, 5, 6, 7, 8]
    assert [blend.seed for blend in ladder.blends] == [1337, 1338]
    assert all(len(result.sample) == 40 for result in ladder.rungs + ladder.ngrams)
    assert {file.name for file in folder.iterdir()} == {".lock", "ladder.json", "ladder.md", "ladder.png"}


def test_the_last_rung_equals_a_run_of_train(measured_ladder: Measured, trained: minigpt.runs.run.Run) -> None:
    (last,) = (r for r in measured_ladder[0].rungs if (r.number, r.seed) == (10, 1337))
    assert last.loss == pytest.approx(trained.info.validation_loss, abs=1e-6)  # but for the order of a sum
    assert last.parameters == trained.info.parameters


def test_the_learned_bigram_equals_a_run_of_the_bigram_preset(
    measured_ladder: Measured, text: str, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(text)
    settings = {name: TINY[name] for name in ("block_size", "batch_size", "max_iters", "eval_interval")}
    run = minigpt.train("bigram", data=tmp_path / "text.txt", out=tmp_path / "run", device="cpu", **settings)
    assert measured_ladder[0].rungs[3].loss == pytest.approx(run.info.validation_loss, abs=1e-6)


def test_the_loss_of_an_n_gram_model_is_the_mean_over_every_prediction(measured_ladder: Measured, text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    dataset = Dataset(tokenizer.encode(text), CONFIG)
    rows = NGramModel.fit(dataset.train, tokenizer.vocab_size, 5).log_probs(dataset.val)
    exact = -rows[torch.arange(1, len(dataset.val)), dataset.val[1:]].mean().item()
    (fifth,) = (result for result in measured_ladder[0].ngrams if result.number == 5)
    assert fifth.loss == pytest.approx(exact)


def test_the_parts_of_a_comparison_add_up_to_the_whole(measured_ladder: Measured) -> None:
    ladder = measured_ladder[0]
    for blend in ladder.blends:
        assert 0 <= blend.weight <= 1
        for by in ("position", "kind"):
            parts = [c for c in ladder.comparisons if (c.seed, c.by) == (blend.seed, by)]
            assert sum(c.share for c in parts) == pytest.approx(1)
            for name in ("transformer", "ngram", "blended"):
                whole = sum(c.share * getattr(c, name) for c in parts)
                assert whole == pytest.approx(getattr(blend, name))
    assert {(c.seed, c.length) for c in ladder.copied} == {(s, n) for s in (1337, 1338) for n in (10, 20, 40)}


def test_a_ladder_measures_only_what_is_missing(measured_ladder: Measured, text_file: Path, tmp_path: Path) -> None:
    ladder, folder = measured_ladder
    copy = shutil.copytree(folder, tmp_path / "ladder")
    content = json.loads((copy / "ladder.json").read_text())
    content["rungs"] = [r for r in content["rungs"] if r["number"] not in (5, 9)]
    content["rungs"][0]["loss"] = 99.0  # would be overwritten if it were measured again
    content["blends"], content["comparisons"], content["copied"] = content["blends"][:1], [], []
    (copy / "ladder.json").write_text(json.dumps(content))
    again = run_ladder(CONFIG, text_file, copy, seeds=2, **SHORT)
    losses = {(r.number, r.seed): r.loss for r in ladder.rungs}
    assert {(r.number, r.seed): r.loss for r in again.rungs} == losses | {(0, 1337): 99.0}
    assert [blend.blended for blend in again.blends] == [blend.blended for blend in ladder.blends]
    assert {c.seed for c in again.comparisons} == {1338}


def test_a_stopped_ladder_continues(text_file: Path, tmp_path: Path, command: Callable) -> None:
    (tmp_path / "short.txt").write_text(text_file.read_text()[:4000])
    arguments = ["ladder", "--data", "short.txt", "--out", tmp_path / "ladder", *FLAGS, "--max-iters", 10]
    process = CommandProcess(arguments, tmp_path)
    for line in process.stdout:
        if "bigram, learned" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "the same command continues from here" in errors
    done = len(LadderDirectory(tmp_path / "ladder").read().rungs)
    assert 4 <= done < 11
    config = Config().override(**{name: TINY[name] for name in SET_BY_FLAGS}, max_iters=10)
    run_ladder(config, tmp_path / "short.txt", tmp_path / "ladder", **SHORT)  # as the command, with shorter samples
    finished = command(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert "which has a part of it already" in finished.stderr
    assert len(LadderDirectory(tmp_path / "ladder").read().rungs) == 11
    assert finished.stdout.count("“") == 11
    before = (tmp_path / "ladder" / "ladder.json").read_bytes()
    again = command(*arguments, "--json")
    assert (tmp_path / "ladder" / "ladder.json").read_bytes() == before  # nothing was left to do
    shown = json.loads(again.stdout)
    assert [rung["name"] for rung in shown["rungs"]] == [rung.name for rung in RUNGS]
    assert shown["rungs"][10]["validation_loss"] == pytest.approx(shown["rungs"][10]["bits_per_character"] * 0.693147)


def test_a_folder_with_another_ladder_or_other_files_is_refused(
    measured_ladder: Measured, text_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="has a ladder with n_embd 16, not 8: choose another out=…"):
        run_ladder(CONFIG.override(n_embd=8), text_file, measured_ladder[1])
    (tmp_path / "other.txt").write_text(text_file.read_text() + "!")
    with pytest.raises(RunError, match="has a ladder with data_sha256"):
        run_ladder(CONFIG, tmp_path / "other.txt", measured_ladder[1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="is not empty, and has no ladder"):
        run_ladder(CONFIG, text_file, tmp_path / "full")


@pytest.mark.parametrize(
    "damage",
    ["", "[]", "{}", '{"format": 2}', "rungs", "settings", "loss"],
)
def test_a_damaged_ladder_file_is_named(
    damage: str, measured_ladder: Measured, text_file: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(measured_ladder[1], tmp_path / "ladder")
    content = json.loads((copy / "ladder.json").read_text())
    if damage in ("rungs", "settings"):
        content[damage] = 3
    elif damage == "loss":
        content["rungs"][2]["loss"] = "low"
    (copy / "ladder.json").write_text(json.dumps(content) if damage in ("rungs", "settings", "loss") else damage)
    with pytest.raises(RunError, match=r"ladder\.json'"):
        run_ladder(CONFIG, text_file, copy)


def test_a_difference_within_the_spread_is_called_unclear(measured_ladder: Measured) -> None:
    row, below = measured_ladder[0].summarize()[5:7]
    for rise, words in ((0.1, "not clearly worse"), (-0.1, "not clearly better"), (0.3, "worse than"), (-0.3, "")):
        higher = dataclasses.replace(below, loss=row.loss + rise, spread=0.2)
        assert describe_difference(higher, dataclasses.replace(row, spread=0.0)).startswith(words)
        assert bool(describe_difference(higher, dataclasses.replace(row, spread=0.0))) == bool(words)


def test_a_ladder_starts_again_after_its_file_is_deleted(
    measured_ladder: Measured, text_file: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(measured_ladder[1], tmp_path / "ladder")
    (folder / "ladder.json").write_text("{")
    with pytest.raises(RunError, match=r"not JSON .*: delete it to start again"):
        LadderDirectory(folder).read()
    (folder / "ladder.json").unlink()
    corpus = find_corpus(text_file)
    assert LadderDirectory(folder).open(CONFIG, corpus).rungs == []


@pytest.mark.parametrize(
    ("characters", "train_fraction", "words"),
    [
        (150, 0.9, r"the validation split has 15 tokens and block_size 16 needs at least 17"),
        (60, 0.5, r"a ladder with block_size 16 needs at least 34"),  # enough to train, but not to keep some out
    ],
)
def test_a_text_that_is_too_short_is_refused_before_a_folder_is_made(
    characters: int, train_fraction: float, words: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text(text[:characters])
    with pytest.raises(DataError, match=words):
        run_ladder(CONFIG.override(train_fraction=train_fraction), tmp_path / "short.txt", tmp_path / "ladder")
    assert not (tmp_path / "ladder").exists()


def test_a_precision_that_the_device_lacks_is_refused_before_a_folder_is_made(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="fp16"):
        run_ladder(CONFIG.override(precision="fp16", device="cpu"), text_file, tmp_path / "ladder")
    assert not (tmp_path / "ladder").exists()


def test_a_rung_that_diverges_is_named(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"rung \d+  [\w +-]+, seed 1337: the loss is"):
        run_ladder(CONFIG.override(learning_rate=1e20), text_file, tmp_path / "ladder")
    assert len(LadderDirectory(tmp_path / "ladder").read().rungs) >= 3  # what was measured is kept


def test_the_full_rung_has_its_presets_shape_and_the_ladders_budget(text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    experiment = LadderExperiment(CONFIG, torch.tensor(tokenizer.encode(text)), tokenizer)
    config = experiment.make_config(FULL, 7)
    experiment.config = CONFIG.override(weight_decay=0.3, order="epochs", min_learning_rate=1e-3)
    other = experiment.make_config(FULL, 7).training
    assert (other.weight_decay, other.order, other.min_learning_rate) == (0.3, "epochs", 3e-4)
    assert (config.model.n_layer, config.model.dropout, config.model.block_size) == (6, 0.2, 256)
    assert (config.training.max_iters, config.training.seed, config.training.batch_size) == (60, 7, 64)


def test_the_report_marks_rungs_that_are_not_better(measured_ladder: Measured) -> None:
    ladder, _ = measured_ladder
    rows = ladder.summarize()
    for row, below in zip(rows[1:], rows, strict=False):
        spread = max(row.spread, below.spread)
        rise = row.loss - below.loss
        unsure = f"not clearly {'worse' if rise > 0 else 'better'} than rung"
        expected = unsure if abs(rise) <= spread else "worse than rung" if rise > 0 else ""
        assert describe_difference(row, below).startswith(expected)
        assert bool(describe_difference(row, below)) == bool(expected)
    report = format_markdown(ladder)
    for row in rows:
        assert f"{row.loss:.4f}" in report
        assert f"**{row.result.name}**" in report
    assert f"{ladder.blends[0].blended:.4f}" in report
    assert len(format_terminal_lines(ladder, 2, full=False)) == 1 + 2 * 11 + 6 + 2
    assert len(format_terminal_lines(ladder, 3, full=False)) == 1 + 2 * 3  # the third seed is still to come


def test_a_wrong_flag_of_ladder_is_refused(command: Callable, text_file: Path) -> None:
    for flags, words in (
        (["--seeds", "0"], "0 is not in the range"),
        (["--n-embd", "6", "--n-head", "4"], "n_embd must be divisible by n_head"),
        (["--data", "missing.txt"], "there is no such file"),
        (["--out", text_file], "a file of that name is in the way"),
    ):
        done = command("ladder", "--data", text_file, *flags)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_two_processes_cannot_measure_into_one_folder(text_file: Path, tmp_path: Path) -> None:
    message = "another process is measuring the ladder in"
    with LadderDirectory(tmp_path / "ladder").lock(), pytest.raises(RunError, match=message):
        run_ladder(CONFIG, text_file, tmp_path / "ladder")
    assert [path.name for path in (tmp_path / "ladder").iterdir()] == [".lock"]


def test_one_seed_gives_no_verdict_between_rungs_that_learn(measured_ladder: Measured) -> None:
    row, below = (dataclasses.replace(each, seeds=1, spread=0.0) for each in measured_ladder[0].summarize()[5:7])
    for rise in (0.0001, 0.5, -0.5):
        assert describe_difference(dataclasses.replace(row, loss=below.loss + rise), below) == ""
    counted = measured_ladder[0].summarize()[1:3]
    assert describe_difference(dataclasses.replace(counted[1], loss=counted[0].loss + 1), counted[0]).startswith(
        "worse"
    )
