"""A wrong command line names the flag that was probably meant; a shell can complete the right one."""

import json
from collections.abc import Callable

import pytest

from minigpt.cli.main import cli
from minigpt.errors import OTHER_NAMES
from minigpt.runs.run import Run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--lr", "3"], "there is no option --lr: did you mean --learning-rate, "),
        (["train", "--epochs", "3"], "there is no option --epochs: did you mean --max-iters, "),
        (["sample", "--temp", "1"], "there is no option --temp: did you mean --temperature, "),
        (["train", "input.txt"], "unexpected extra argument (input.txt): a text is named by --data"),
        (["train", "--batchsize", "3"], "'--batch-size'"),
        (["sample", "--lr", "3"], "No such option '--lr'."),
    ],
)
def test_a_flag_of_another_program_is_answered_with_ours(words: list[str], message: str, command: Callable) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_every_setting_that_is_suggested_exists() -> None:
    names = {option.name for command in cli.commands.values() for option in command.params}
    assert set(OTHER_NAMES.values()) <= names
    assert not set(OTHER_NAMES) & {option.name for option in cli.commands["train"].params}


@pytest.mark.parametrize(
    ("words", "expected"),
    [("minigpt tr", "train"), ("minigpt train --learn", "--learning-rate"), ("minigpt tokenizer dec", "decode")],
)
def test_a_shell_completes_commands_and_flags(words: str, expected: str, command: Callable) -> None:
    place = str(len(words.split()) - 1)
    done = command(env={"_MINIGPT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": place})
    assert done.stdout.splitlines() == [f"plain,{expected}"]
    script = command(env={"_MINIGPT_COMPLETE": "zsh_source"})
    assert "#compdef minigpt" in script.stdout


def test_the_short_flag_prints_the_version(command: Callable) -> None:
    assert command("-V").stdout == command("--version").stdout != ""


def test_a_path_inside_a_run_opens_the_run(trained: Run, command: Callable) -> None:
    words = ["--max-new-tokens", 8, "--seed", 1]
    whole = command("sample", trained.path, *words).stdout
    assert command("sample", trained.path / "model.safetensors", *words).stdout == whole
    assert command("sample", trained.path / "checkpoints", *words).stdout == whole
    assert command("sample", trained.path.parent, *words).returncode == 2


def test_tokenizer_and_chat_print_json(trained: Run, command: Callable) -> None:
    file = trained.path / "tokenizer.json"
    ids = trained.tokenizer.encode("sea")
    assert json.loads(command("tokenizer", "decode", file, *ids, "--json").stdout) == {"text": "sea", "tokens": 3}
    shown = json.loads(command("tokenizer", "show", file, "--json", "--limit", 2, "--text", "sea").stdout)
    assert shown["vocab_size"] == trained.tokenizer.vocab_size
    assert shown["tokens"] == [trained.tokenizer.decode([0]), trained.tokenizer.decode([1])]
    assert shown["text"] == ["s", "e", "a"]
    chat = command("chat", trained.path, "--max-new-tokens", 4, "--json", input=b"sea\nsalt\n")
    messages = json.loads(chat.stdout)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [message["content"] for message in messages[::2]] == ["sea", "salt"]
