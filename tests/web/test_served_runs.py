"""Which runs are served, and under which names."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from answer_training import train_to_answer
from conftest import TINY

import minigpt
from minigpt.errors import ConfigError, DataError, MinigptError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.process_file import name_process
from minigpt.web.api_errors import ApiError
from minigpt.web.runs_api import list_cards
from minigpt.web.served_runs import ServedRuns


def test_a_run_is_loaded_once(trained: Run) -> None:
    runs = ServedRuns([trained.path])
    assert runs.open("trained") is runs.open("trained")


def test_a_run_that_was_replaced_is_loaded_again(trained: Run, text_file: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    runs = ServedRuns(folder=tmp_path)
    before = runs.open("run")
    minigpt.train(data=text_file, out=tmp_path / "run", overwrite=True, **{**TINY, "max_iters": 20, "seed": 5})
    assert runs.open("run").info.step == 20 and before.info.step == 60
    assert runs.read_overview("run").info.step == 20


def test_runs_that_appear_later_are_served(trained: Run, tmp_path: Path) -> None:
    runs = ServedRuns(folder=tmp_path / "runs")
    assert runs.list_names() == []
    shutil.copytree(trained.path, tmp_path / "runs" / "new")
    assert runs.list_names() == ["new"]
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(ApiError, match="there is no run 'new'"):
        runs.open("new")


def test_two_runs_of_the_same_name_are_refused(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "trained")
    with pytest.raises(ConfigError, match="two of the runs are named 'trained'"):
        ServedRuns([trained.path, tmp_path / "trained"])


def test_a_link_out_of_the_folder_is_not_served(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(trained.path)
    shutil.copytree(trained.path, tmp_path / "runs" / "inside")
    weights = tmp_path / "runs" / "inside" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(trained.path / "model.safetensors")
    runs = ServedRuns(folder=tmp_path / "runs")
    assert runs.list_names() == ["inside"]
    with pytest.raises(MinigptError, match="link"):
        runs.open("inside")


def test_the_n_gram_model_of_a_text_that_has_changed_is_refused(trained: Run, text: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(text)
    minigpt.train(data=tmp_path / "text.txt", out=tmp_path / "runs" / "run", **{**TINY, "max_iters": 1})
    (tmp_path / "text.txt").write_text(text.replace("sea", "see"))
    with pytest.raises(DataError):
        ServedRuns(folder=tmp_path / "runs").open("ngram:run")


def test_a_card_says_what_the_run_s_files_say(trained: Run, served_folder: Path) -> None:
    cards = {card["name"]: card for card in list_cards(ServedRuns([trained.path], served_folder))}
    card = cards["trained"]
    assert (card["kind"], card["parameters"], card["n_layer"]) == ("gpt", trained.info.parameters, 2)
    assert card["validation_loss"] == trained.info.validation_loss
    assert card["bits_per_byte"] == trained.info.bits_per_byte
    assert set(card["views"].values()) == {None}
    assert "bigram" in cards["bigram"]["views"]["attention"] and cards["bigram"]["n_layer"] == 0
    assert cards["chat"]["is_chat"] and not card["is_chat"]
    assert cards["broken"]["status"] == "broken" and "tokenizer.json" in cards["broken"]["error"]
    assert (cards["ngram:trained"]["kind"], cards["ngram:trained"]["status"]) == ("ngram", None)
    assert "ngram:broken" not in cards


def test_the_status_of_a_run_that_is_trained_is_training(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "old")
    shutil.copytree(trained.path, tmp_path / "begun")
    info = dataclasses.replace(trained.info, status="unfinished")
    for name in ("old", "begun"):
        RunDirectory(tmp_path / name).write_info(info)
    (tmp_path / "begun" / "model.safetensors").unlink()  # before the first evaluation
    runs = ServedRuns(folder=tmp_path)
    with name_process(tmp_path / "old" / ".process"), name_process(tmp_path / "begun" / ".process"):
        cards = {card["name"]: card for card in list_cards(runs)}
        assert cards["old"]["status"] == cards["begun"]["status"] == "training"
        assert cards["old"]["error"] is None and "no weights yet" in cards["begun"]["error"]
    cards = {card["name"]: card for card in list_cards(runs)}
    assert (cards["old"]["status"], cards["begun"]["status"]) == ("unfinished", "broken")


def test_a_run_that_learned_instructions_has_the_text_of_its_base(trained: Run, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained.path, runs / "base")
    (tmp_path / "examples").mkdir()
    answers = train_to_answer(minigpt.load(runs / "base"), tmp_path / "examples", "ab", 1).run
    shutil.move(answers.path, runs / "answers")
    cards = {card["name"]: card for card in list_cards(ServedRuns(folder=runs))}
    assert cards["answers"]["views"]["memorization"] is None
    assert "ngram:base" in cards and "ngram:answers" not in cards
    shutil.rmtree(runs / "base")
    cards = {card["name"]: card for card in list_cards(ServedRuns(folder=runs))}
    assert cards["answers"]["views"]["memorization"] == "the training text of this run is not known"
