"""The commands `train`, `sample`, `info` and `eval`, as a user and a program call them."""

import errno
import functools
import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_process import COMMAND, CommandProcess, close_streams, in_terminal
from conftest import TINY_FLAGS

from minigpt.cli.main import run
from minigpt.runs.run import Run
from minigpt.tokenizers.base import compute_fingerprint


def test_train_prints_a_sample_and_the_next_command(command: Callable, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_bytes(text_file.read_bytes())
    done = command("train", *TINY_FLAGS, env={"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert "the file input.txt: 20,000 characters" in done.stderr
    assert len(done.stdout) > 500
    assert "validation loss" in done.stdout
    assert "next: minigpt sample runs/lecture" in done.stdout
    again = command("train", *TINY_FLAGS, "--json")
    described = json.loads(again.stdout)
    assert described["run"] == "runs/lecture-2"
    assert described["status"] == "finished"


def test_the_next_command_has_the_name_by_which_the_program_was_called(
    command: Callable, text_file: Path, tmp_path: Path
) -> None:
    flags = ["--preset", "bigram", "--max-iters", "1", "--eval-windows", "4", "--data", str(text_file)]
    done = command("train", *flags, env={"PATH": "/usr/bin:/bin"})
    assert f"next: {os.path.relpath(COMMAND, tmp_path)} sample runs/bigram" in done.stdout


def test_flags_override_the_file_which_overrides_the_preset(command: Callable, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('preset = "bigram"\n[training]\nmax_iters = 7\nbatch_size = 3\n')
    done = command("train", "--data", text_file, "--config", "mine.toml", "--max-iters", 2, "--json")
    config = json.loads(done.stdout)["config"]
    assert config["training"]["max_iters"] == 2
    assert config["training"]["batch_size"] == 3
    assert config["model"]["architecture"] == "bigram"
    again = command("train", "--data", text_file, "--config", "runs/bigram/config.toml", "--json")
    assert json.loads(again.stdout)["config"] == config


def test_a_byte_order_mark_is_left_out_of_settings_texts_and_prompts(
    command: Callable, trained: Run, text: str, tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text('\ufeffarchitecture = "nothing"\n', encoding="utf-8")
    refused = command("train", "--config", "a.toml")
    assert refused.returncode == 2
    assert "architecture must be one of" in refused.stderr
    (tmp_path / "a.txt").write_text("\ufeff" + text, encoding="utf-8")
    measured = command("eval", trained.path, "--data", "a.txt", "--json")
    assert json.loads(measured.stdout)["split"] == "validation split"  # it is the text of the run
    assert "'a.txt' begins with a byte order mark (U+FEFF), which is left out" in measured.stderr
    written = command("sample", trained.path, "--prompt", "\ufefftime", "--max-new-tokens", "1", "--json")
    assert json.loads(written.stdout)["prompt"] == "time"
    assert "the prompt begins with a byte order mark" in written.stderr


def test_a_text_that_marks_the_end_of_documents_gets_a_word(command: Callable, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text + "<|endoftext|>\n" + text, encoding="utf-8")
    done = command("train", "--data", "a.txt", "--preset", "bigram", "--max-iters", "1", "--out", "run")
    assert (
        "has <|endoftext|> 1 times as ordinary text: to split the text there, use minigpt data prepare --separator"
        in done.stderr
    )
    done = command("data", "prepare", "a.txt", "--out", "data")
    assert "1 passages have <|endoftext|> as ordinary text: if it ends a document, add --separator" in done.stderr


def test_info_prints_text_or_json(command: Callable, trained: Run) -> None:
    shown = command("info", trained.path)
    assert shown.returncode == 0
    assert f"{trained.info.parameters:,}" in shown.stdout
    assert "self-attention" in shown.stdout
    assert f"SHA-256 {compute_fingerprint(trained.tokenizer)}" in shown.stdout
    settings = {line[12:].split()[0]: line[12:].split()[1:] for line in shown.stdout.splitlines()}
    assert (settings["n_embd"], settings["max_iters"]) == ([str(trained.config.model.n_embd)], ["60"])
    described = json.loads(command("info", trained.path, "--json").stdout)
    assert described["parameters"] == sum(described["parameters_by_part"].values()) == trained.info.parameters
    assert described["validation_loss"] == trained.info.validation_loss
    assert described["bits_per_character"] == pytest.approx(trained.info.validation_loss / math.log(2))
    assert described["data_sha256"] == trained.info.data_sha256


def test_eval_prints_text_or_json(command: Callable, trained: Run, tmp_path: Path) -> None:
    shown = command("eval", trained.path)
    assert f"{trained.info.validation_loss:.4f} nats" in shown.stdout
    measured = json.loads(command("eval", trained.path, "--json").stdout)
    assert measured["validation_loss"] == pytest.approx(trained.info.validation_loss)
    assert measured["perplexity"] == pytest.approx(math.exp(trained.info.validation_loss))
    assert measured["bits_per_character"] == pytest.approx(trained.info.validation_loss / math.log(2))
    (tmp_path / "other.txt").write_text("The sea sings, the wind keeps the bell")
    other = json.loads(command("eval", trained.path, "--data", "other.txt", "--json").stdout)
    assert other["loss"] == pytest.approx(trained.loss("The sea sings, the wind keeps the bell"))
    assert other["split"] == "whole text"


def test_sample_takes_its_prompt_from_a_flag_or_a_pipe_or_has_none(command: Callable, trained: Run) -> None:
    flags = ["--max-new-tokens", "30", "--seed", "3"]
    expected = trained.generate("GULL:\n", max_new_tokens=30, seed=3) + "\n"
    assert command("sample", trained.path, "--prompt", "GULL:\n", *flags).stdout == expected
    assert command("sample", trained.path, *flags, input="GULL:\n").stdout == expected
    assert command("sample", trained.path, "--prompt", "-", *flags, input="GULL:\n").stdout == expected
    assert command("sample", trained.path, *flags).stdout == trained.generate(max_new_tokens=30, seed=3) + "\n"


def test_control_characters_of_an_untrusted_run_are_escaped_on_a_terminal(trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"data_source": "\x1b]0;title\x07" + " sea" * 30}))
    status, shown = in_terminal("info", run, cwd=tmp_path)
    assert status == 0
    assert "␛]0;title␇" in shown
    assert "\x1b]0" not in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= 100
    (start,) = [i for i, line in enumerate(lines) if line.startswith("text ")]
    assert lines[start + 1].startswith(f"{'':12}sea sea")  # a long line breaks between words


def test_sample_does_not_wait_for_an_idle_pipe(trained: Run, tmp_path: Path) -> None:
    idle, other_end = os.pipe()
    process = CommandProcess(["sample", trained.path, "--max-new-tokens", 5], tmp_path, stdin=idle)
    shown, said = process.communicate()
    os.close(idle)
    os.close(other_end)
    assert (process.returncode, len(shown)) == (0, 6)
    assert "--prompt - waits for one" in said


def test_sample_without_a_run_takes_the_newest_and_prints_its_name(
    command: Callable, trained: Run, tmp_path: Path
) -> None:
    shutil.copytree(trained.path, tmp_path / "runs" / "mine")
    done = command("sample", "--max-new-tokens", 5)
    assert done.returncode == 0
    assert "runs/mine" in done.stderr
    assert len(done.stdout) == 6


def test_sample_prints_json(command: Callable, trained: Run) -> None:
    flags = ["--prompt", "GULL:", "--num-samples", "3", "--max-new-tokens", "20", "--top-k", "5", "--top-p", "0.9"]
    first = json.loads(command("sample", trained.path, *flags, "--json").stdout)
    assert len(set(first["samples"])) == 3
    assert all(len(text) == 25 for text in first["samples"])
    again = json.loads(command("sample", trained.path, *flags, "--seed", first["seed"], "--json").stdout)
    assert again == first
    shown = command("sample", trained.path, *flags, "--seed", first["seed"]).stdout
    assert all(text in shown for text in first["samples"])


def test_temperature_zero_gives_the_same_text_without_a_seed(command: Callable, trained: Run) -> None:
    flags = ["--temperature", "0", "--max-new-tokens", "20"]
    assert command("sample", trained.path, *flags).stdout == command("sample", trained.path, *flags).stdout


def test_a_closed_pipe_ends_sample_without_an_error(trained: Run, tmp_path: Path) -> None:
    writer = CommandProcess(["sample", trained.path, "--max-new-tokens", 100_000], tmp_path)
    assert writer.stdout.read(20)
    writer.stdout.close()
    lines = writer.stderr.read().splitlines()
    assert [line for line in lines if not line.startswith("minigpt: compiling")] == []
    assert writer.wait() == 0


def test_output_that_cannot_be_written_is_an_error(trained: Run) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([COMMAND, "info", trained.path], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "minigpt: cannot write to standard output: No space left on device\n")


def test_what_the_system_refuses_is_named(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*names: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), *names)

    for names, message in (
        (["a.bin"], "cannot use 'a.bin': Read-only file system"),
        ([], "the system refused refuse() in test_commands.py: Read-only file system"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", functools.partial(refuse, *names))
        assert run(["eval", str(trained.path)]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"minigpt: {message}"


@pytest.mark.parametrize(("closed", "characters"), [(["stdout"], 0), (["stdin", "stderr"], 6)])
def test_sample_works_with_closed_streams(closed: list[str], characters: int, trained: Run, command: Callable) -> None:
    close = functools.partial(close_streams, *closed)
    done = command("sample", trained.path, "--max-new-tokens", 5, prepare=close)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", characters)


def test_an_error_keeps_its_exit_status_without_standard_error() -> None:
    missing = subprocess.run(["sh", "-c", f"{COMMAND} info nothing 2>&-"], capture_output=True, text=True)
    assert (missing.returncode, missing.stdout) == (2, "")


def test_a_huge_loss_is_reported(command: Callable, text_file: Path) -> None:
    flags = ["--preset", "bigram", "--learning-rate", "300", "--max-iters", "20", "--eval-windows", "4"]
    done = command("train", "--data", text_file, *flags)
    assert done.returncode == 0, done.stderr
    assert "perplexity inf" in done.stdout
    assert json.loads(command("eval", "runs/bigram", "--json").stdout)["perplexity"] is None


def test_weights_best_opens_the_best_evaluation(command: Callable, trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / "best.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    (run / "model.safetensors").write_bytes(b"broken")
    assert command("sample", run, "--weights", "best", "--max-new-tokens", 5).returncode == 0
    assert command("sample", run, "--max-new-tokens", 5).returncode == 2


def test_version_prints_the_version(command: Callable) -> None:
    assert command("--version").stdout.startswith("minigpt, version 0.")
