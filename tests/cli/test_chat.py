"""`minigpt chat`: turns, commands and typing errors."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import train_to_answer

from minigpt.config import SamplingConfig
from minigpt.errors import DataError
from minigpt.finetuning.examples import read_examples
from minigpt.runs.chat import Chat, fit_prompt
from minigpt.runs.run import Run
from minigpt.tokenizers.chat_format import ChatTemplate, Turn


@pytest.fixture(scope="module")
def parrot(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that has learned to answer every question with "a"."""
    return train_to_answer(trained, tmp_path_factory.mktemp("parrot"), "a", max_iters=150, learning_rate=1e-2).run


def test_questions_are_answered_and_commands_are_obeyed(parrot: Run, command: Callable, tmp_path: Path) -> None:
    typed = "q1\n/temperature 0\nq2\n/save talk.jsonl\n/reset\nq3\n/save last.jsonl\n/quit\nnever\n"
    done = command("chat", parrot.path, "--temperature", "0", "--max-new-tokens", "3", input=typed)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a\na\na\n"
    (talk,) = read_examples(tmp_path / "talk.jsonl")
    assert [(turn.role, turn.text) for turn in talk.turns] == [
        ("user", "q1"),
        ("assistant", "a"),
        ("user", "q2"),
        ("assistant", "a"),
    ]
    (last,) = read_examples(tmp_path / "last.jsonl")
    assert len(last.turns) == 2


def test_typing_errors_are_explained_and_the_conversation_continues(parrot: Run, command: Callable) -> None:
    typed = "/dance\n/temperature hot\n/temperature -1\n/save\n/save nowhere/talk\n漢\n" + "q" * 40 + "\nq1\n"
    done = command("chat", parrot.path, "--temperature", "0", "--max-new-tokens", "3", input=typed)
    assert done.returncode == 0
    assert done.stdout == "a\n"
    for part in (
        "no command '/dance'",
        "not 'hot'",
        "not -1.0",
        "/save needs",
        "nowhere/talk",
        "is not among",
        "that is 42 tokens",
    ):
        assert part in done.stderr, part
    assert "Traceback" not in done.stderr


def test_a_model_without_instruction_tuning_continues_the_text(trained: Run, command: Callable) -> None:
    done = command("chat", trained.path, "--max-new-tokens", "5", input="GULL:\n")
    assert done.returncode == 0
    assert "was not trained on instructions" in done.stderr
    assert len(done.stdout) >= 5
    assert command("chat", trained.path, "--temperature", "-1").returncode == 2


def test_the_oldest_turns_are_dropped_until_the_prompt_fits(parrot: Run) -> None:
    template = ChatTemplate(parrot.tokenizer)
    turns = [
        Turn("user", "q1"),
        Turn("assistant", "a"),
        Turn("user", "q22"),
        Turn("assistant", "a"),
        Turn("user", "q333"),
    ]
    whole = template.encode_prompt(turns)
    assert fit_prompt(template, turns, 100) == whole
    assert fit_prompt(template, turns, 20) == template.encode_prompt(turns[2:])
    assert fit_prompt(template, turns, 8) == template.encode_prompt(turns[4:])
    with pytest.raises(DataError, match="that is 6 tokens, and the model sees 6 at once"):
        fit_prompt(template, turns, 6)


def test_the_same_seed_gives_the_same_answers(parrot: Run) -> None:
    config = SamplingConfig(max_new_tokens=8, temperature=2.0, seed=5)
    first, again = (Chat(parrot, config) for _ in range(2))
    for question in ("q1", "q2"):
        assert "".join(first.answer(question)) == "".join(again.answer(question))
    assert first.turns == again.turns
    assert dataclasses.replace(config, seed=7) == first.config
