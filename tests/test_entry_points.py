"""What `import minigpt` offers: the functions, what a notebook shows and completes, and its advice."""

import inspect
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import TINY

import minigpt
from minigpt.config import ModelConfig, TrainingConfig
from minigpt.errors import ConfigError, DataError, RunError
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.model import lecture
from minigpt.model.gpt import GPT
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.model.modern import Modern
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.advice import advise_commands, choose_advice, format_setting
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import Callback
from minigpt.training.train import train as train_with_callbacks
from minigpt.training.training_state import TrainingState


def test_every_public_name_is_there_without_another_import() -> None:
    assert set(minigpt.__all__) <= set(dir(minigpt))
    for name in minigpt.__all__:
        assert getattr(minigpt, name) is not None
    assert callable(minigpt.studies.plot_loss)


def test_overwrite_takes_the_place_of_the_run_with_that_name(text_file: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        run = minigpt.train("bigram", data=text_file, out=tmp_path / "run", overwrite=True, max_iters=1, seed=seed)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert minigpt.load(run.path).config.training.seed == 2


def test_resume_makes_a_run_longer_and_returns_a_finished_one(text_file: Path, tmp_path: Path) -> None:
    run = minigpt.train("bigram", data=text_file, out=tmp_path / "run", max_iters=1)
    assert minigpt.resume(run.path).info == run.info
    assert minigpt.resume(run.path, max_iters=3, eval_interval=None).info.step == 3
    with pytest.raises(ConfigError, match="base is for fine-tuned runs"):
        minigpt.resume(run.path, base=run.path)


def test_finetune_and_resume_a_fine_tuning(trained: Run, text_file: Path, tmp_path: Path) -> None:
    adapted = minigpt.finetune(
        trained.path, data=text_file, method="lora", lora=LoRAConfig(rank=2), out=tmp_path / "lora", max_iters=2
    )
    assert (adapted.info.step, RunDirectory(adapted.path).read_finetuning_info().rank) == (2, 2)
    assert minigpt.resume(adapted.path).info == adapted.info
    assert minigpt.resume(adapted.path, max_iters=3).info.step == 3
    for wrong, message in (
        ({"tasks": "upper"}, "lists of names"),
        ({}, "exactly one of data, tasks and preferences"),
        ({"data": text_file, "beta": 0.1}, "beta needs preferences"),
        ({"data": text_file, "lora": LoRAConfig()}, "add method='lora'"),
    ):
        with pytest.raises(ConfigError, match=message):
            minigpt.finetune(trained, out=tmp_path / "no", **wrong)


def test_load_without_a_name_opens_the_newest_run(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run in 'runs' yet"):
        minigpt.load()
    shutil.copytree(trained.path, tmp_path / "runs" / "mine")
    assert minigpt.load().path == Path("runs/mine")


def test_a_notebook_shows_a_few_lines(trained: Run) -> None:
    loss = f"{trained.info.validation_loss:.4f}"
    assert repr(trained).startswith(f"<Run path {str(trained.path)!r}, preset lecture, parameters ")
    assert repr(trained).endswith(f"status finished, validation loss {loss}>")
    assert f"<tr><th>validation loss</th><td>{loss}</td></tr>" in trained._repr_html_()
    assert repr(ModelConfig(n_embd=32, n_head=2)) == "ModelConfig(n_embd=32, n_head=2)"
    assert eval(repr(trained.config.training)) == trained.config.training != TrainingConfig()
    assert "<tr><th>n_embd</th><td>16</td></tr>" in trained.config._repr_html_()
    assert "KEEPER" not in repr(trained.corpus())


def test_the_signatures_list_the_settings(trained: Run) -> None:
    parameters = inspect.signature(minigpt.train).parameters
    assert (parameters["max_iters"].default, parameters["n_embd"].default) == (5000, 64)
    assert "quantization" not in parameters and "fields" not in parameters
    assert "learning_rate" in inspect.signature(minigpt.finetune).parameters
    assert "n_embd" not in inspect.signature(minigpt.finetune).parameters
    assert inspect.signature(minigpt.resume).parameters["max_iters"].default is None
    assert "top_k" in inspect.signature(trained.generate).parameters
    assert inspect.signature(trained.chat).parameters["temperature"].default == 0.7


def test_a_list_of_prompts_gives_a_list_of_texts(trained: Run) -> None:
    prompts = ["GULL:", "My sea"]
    texts = trained.generate(prompts, max_new_tokens=9, seed=1)
    assert texts == [trained.generate(prompt, max_new_tokens=9, seed=1) for prompt in prompts]


def test_a_chat_keeps_its_turns(trained: Run) -> None:
    chat = trained.chat(max_new_tokens=4, seed=1)
    answers = [chat.ask("the sea"), chat.ask("the salt")]
    assert [turn.text for turn in chat.turns] == ["the sea", answers[0], "the salt", answers[1]]


def test_the_loss_is_drawn_under_the_name_of_the_run(trained: Run) -> None:
    [axes] = minigpt.studies.plot_loss(trained).axes
    assert axes.get_title() == f"{trained.path.name}: lecture, {trained.info.parameters:,} parameters"


def test_a_file_name_in_the_place_of_a_text_is_refused(trained: Run, text_file: Path) -> None:
    name = str(text_file)
    for given in (name, text_file):
        with pytest.raises(DataError, match=r"verse.txt' is the name of a file, not a text: run.evaluate\('"):
            trained.loss(given)
    for make in (CharTokenizer.from_text, lambda text: BPETokenizer.train(text, 300)):
        with pytest.raises(DataError, match=r"is the name of a file.*read_text\(\)"):
            make(name)
    with pytest.raises(DataError, match="must be a str, not a list"):
        trained.loss(["the sea"])


def test_a_model_made_from_a_number_is_refused_in_a_sentence() -> None:
    parts = [lecture.Head, lecture.MultiHeadAttention, lecture.FeedForward, lecture.Block]
    for kind in (BigramLanguageModel, GPTLanguageModel, GPT, Modern, *parts):
        name = kind.__name__
        with pytest.raises(ConfigError, match=rf"{name} needs a ModelConfig, not 9: write {name}\(ModelConfig\(vocab"):
            kind(9)


def test_a_setting_of_another_program_is_answered_with_ours(trained: Run) -> None:
    with pytest.raises(ConfigError, match="there is no setting 'lr'; did you mean 'learning_rate'"):
        minigpt.train(lr=1e-3)
    with pytest.raises(ConfigError, match="did you mean 'max_new_tokens'"):
        trained.generate("a", max_tokens=3)


class _CtrlC(Callback):
    """Presses Ctrl-C as the training begins."""

    def on_train_begin(self, state: TrainingState) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_advice_is_for_python_in_python_and_for_the_shell_at_the_shell(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    config = minigpt.config.Config().override(**TINY)
    with pytest.raises(KeyboardInterrupt):
        train_with_callbacks(config, text_file, tmp_path / "run", callbacks=[_CtrlC()])
    assert f"to resume: minigpt.resume('{tmp_path / 'run'}')" in capfd.readouterr().err.replace("\n", "")
    with advise_commands():
        assert choose_advice("minigpt train", "minigpt.train()").endswith("minigpt train")
        assert format_setting("max_iters", 3) == "--max-iters 3"
    assert format_setting("max_iters", 3) == "max_iters=3"


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(minigpt.__file__).with_name("py.typed").is_file()
