"""`minigpt chat`: turns, commands and typing errors."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from answer_training import train_to_answer

from minigpt.cli.main import run as run_minigpt
from minigpt.config import SamplingConfig
from minigpt.errors import DataError
from minigpt.finetuning.examples import read_examples
from minigpt.model.lecture import BigramLanguageModel
from minigpt.runs.chat import Chat, fit_prompt
from minigpt.runs.run import Run
from minigpt.tokenizers.base import Tokenizer
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.chat_format import CHAT_TOKENS, ChatTemplate, Turn


@pytest.fixture(scope="module")
def parrot(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that has learned to answer every question with "a"."""
    return train_to_answer(trained, tmp_path_factory.mktemp("parrot"), "a", max_iters=150, learning_rate=1e-2).run


def build_bigram(run: Run, tokenizer: Tokenizer, *tokens: int) -> Run:
    """Return a run whose model writes these tokens, each of them after the one before it; tokens do not repeat."""
    config = run.config.override(architecture="bigram", vocab_size=tokenizer.vocab_size)
    model = BigramLanguageModel(config.model)
    with torch.no_grad():
        for token, following in itertools.pairwise(tokens):
            model.token_embedding_table.weight[token, following] = 100.0
    return dataclasses.replace(run, model=model.eval(), tokenizer=tokenizer, config=config)


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
    typed = "/dance\n/temperature hot\n/temperature -1\n/save\n漢\n" + "q" * 40 + "\nq1\n/save nowhere/talk\n"
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


def test_characters_of_several_tokens_are_answered_and_kept_whole(trained: Run) -> None:
    tokenizer = BPETokenizer([], CHAT_TOKENS)  # a token for each byte
    special = tokenizer.special_tokens
    answer = "é漢🙂"
    run = build_bigram(trained, tokenizer, special["<|assistant|>"], *tokenizer.encode(answer), special["<|end|>"])
    conversation = Chat(run, SamplingConfig(temperature=0))
    assert list(conversation.answer("q")) == list(answer)
    assert conversation.turns == [Turn("user", "q"), Turn("assistant", answer)]


@pytest.mark.parametrize("mark", [*CHAT_TOKENS, "<|endoftext|>"])
def test_a_special_token_ends_the_answer_and_the_conversation_continues(trained: Run, mark: str) -> None:
    tokenizer = CharTokenizer("aq", [*CHAT_TOKENS, "<|endoftext|>"])  # it cannot encode the name of any of these
    special = tokenizer.special_tokens
    run = build_bigram(trained, tokenizer, special["<|assistant|>"], *tokenizer.encode("a"), special[mark])
    conversation = Chat(run, SamplingConfig(temperature=0))
    for _ in range(2):
        assert "".join(conversation.answer("q")) == "a"
    assert conversation.turns == [Turn("user", "q"), Turn("assistant", "a")] * 2


def test_what_a_model_without_instruction_tuning_writes_is_saved_too(trained: Run, tmp_path: Path) -> None:
    conversation = Chat(trained, SamplingConfig(max_new_tokens=20, seed=3))
    continued = ["".join(conversation.answer(text)) for text in ("GULL:\n", "the sea")]
    assert continued == [trained.generate("GULL:\n", max_new_tokens=20, seed=3)[6:], continued[1]]
    assert conversation.save(tmp_path / "talk.jsonl") == 2
    (talk,) = read_examples(tmp_path / "talk.jsonl")
    assert [turn.text for turn in talk.turns] == ["GULL:\n", continued[0], "the sea", continued[1]]


def test_only_what_finetune_reads_is_saved(trained: Run, tmp_path: Path) -> None:
    conversation = Chat(trained, SamplingConfig())
    with pytest.raises(DataError, match="no answer to save: ask something first"):
        conversation.save(tmp_path / "talk.jsonl")
    conversation.turns = [Turn("user", "q1"), Turn("assistant", "")]
    with pytest.raises(DataError, match="no answer to save"):
        conversation.save(tmp_path / "talk.jsonl")
    assert not (tmp_path / "talk.jsonl").exists()
    conversation.turns += [Turn("user", "q2"), Turn("assistant", "a")]
    assert conversation.save(tmp_path / "talk.jsonl") == 1
    (talk,) = read_examples(tmp_path / "talk.jsonl")
    assert talk.questions == ["q2"]


def test_an_example_with_an_input_can_be_asked_again(
    parrot: Run, command: Callable, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    typed = "q1\\\nq2\n/save talk.jsonl\n"
    done = command("chat", parrot.path, "--temperature", "0", "--max-new-tokens", "3", input=typed)
    assert done.stdout == "a\n"
    (talk,) = read_examples(tmp_path / "talk.jsonl")
    assert talk.questions == ["q1\nq2"]
    asked = ["sample", str(parrot.path), "--ask", "q1", "--ask", "q2", "--temperature", "0", "--max-new-tokens", "3"]
    assert run_minigpt([*asked, "--seed", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["question"], found["samples"]) == ("q1\nq2", ["a"])
    assert run_minigpt([*asked, "--num-samples", "2"]) == 0
    assert capsys.readouterr().out == "--- 1 ---\na\n--- 2 ---\na\n"
    assert run_minigpt([*asked, "--prompt", "q"]) == 2


def test_a_model_without_instructions_is_not_asked(trained: Run, capsys: pytest.CaptureFixture) -> None:
    assert run_minigpt(["sample", str(trained.path), "--ask", "q"]) == 2
    assert "has learned no instructions: continue a text with --prompt" in capsys.readouterr().err
