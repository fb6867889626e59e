"""Examples of a file: no question of a test example is learned, in whatever conversation it stands."""

import itertools
import random

import pytest

from minigpt.errors import DataError
from minigpt.finetuning.dpo_dataset import PreferencePair
from minigpt.finetuning.example_split import split_by_questions
from minigpt.finetuning.examples import Example
from minigpt.tokenizers.chat_format import Turn


def make_conversation(*questions: str) -> Example:
    return Example(tuple(turn for q in questions for turn in (Turn("user", q), Turn("assistant", f"to {q}"))))


def make_conversations(seed: int) -> list[Example]:
    """Conversations that share questions: in the first place, in later places, and after a system's turn."""
    rng = random.Random(seed)
    names = [f"question {n}" for n in range(400)]
    found = [make_conversation(*rng.sample(names, rng.randint(1, 3))) for _ in range(300)]
    return found + [Example((Turn("system", "be brief"), *example.turns)) for example in found[:50]]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_question_of_a_test_conversation_is_learned(seed: int) -> None:
    examples = make_conversations(seed)
    train, test = split_by_questions(examples, [each.questions for each in examples], "it", "examples")
    assert test
    learned = {question for example in train for question in example.questions}
    assert not [example for example in test if not learned.isdisjoint(example.questions)]


def test_conversations_that_begin_alike_stay_together() -> None:
    examples = [
        make_conversation(f"{n}", *more) for n in range(100) for more in ([], ["then"], ["and then", "at last"])
    ]
    train, test = split_by_questions(examples, [each.questions for each in examples], "it", "examples")
    assert {each.questions[0] for each in train}.isdisjoint(each.questions[0] for each in test)
    assert {len(each.questions) for each in test} == {1}  # the later questions are learned elsewhere


def test_conversations_that_all_go_on_alike_are_held_out_by_their_first_question() -> None:
    examples = [make_conversation(f"{n}", "continue") for n in range(100)]
    train, test = split_by_questions(examples, [each.questions for each in examples], "it", "examples")
    assert 0 < len(test) < 30
    assert {each.questions[0] for each in train}.isdisjoint(each.questions[0] for each in test)


def test_pairs_are_split_by_their_questions_too() -> None:
    pairs = [
        PreferencePair(
            make_conversation(f"{n % 150}", f"{n % 170} again"), make_conversation(f"{n % 150}", f"{n % 170} again")
        )
        for n in range(200)
    ]
    train, test = split_by_questions(pairs, [pair.chosen.questions for pair in pairs], "it", "pairs")
    learned = {question for pair in train for question in pair.chosen.questions}
    assert not [pair for pair in test if not learned.isdisjoint(pair.chosen.questions)]


def split(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    return split_by_questions(examples, [each.questions for each in examples], "it", "examples")


@pytest.mark.parametrize("count", [2, 3, 5, 14, 15, 100])
def test_from_two_different_questions_on_both_parts_have_one(count: int) -> None:
    for number in range(20):
        train, test = split([make_conversation(f"set {number}, question {n}") for n in range(count)])
        assert len(test) == max(1, round(count / 10))
        assert len(train) == count - len(test)


def test_questions_that_are_learned_elsewhere_leave_both_parts_an_item() -> None:
    for number in range(20):
        a, b = f"{number} a", f"{number} b"
        train, test = split([make_conversation(a, b), make_conversation(b, a)])
        assert (len(train), len(test)) == (1, 1)


def test_conversations_that_ask_a_held_out_question_are_not_learned_if_nothing_else_could_be_tested() -> None:
    questions = [f"question {n}" for n in range(30)]
    train, test = split([make_conversation(*pair) for pair in itertools.pairwise([*questions, questions[0]])])
    assert len(test) == 3
    assert len(train) >= 20
    learned = {question for example in train for question in example.questions}
    assert learned.isdisjoint(example.questions[0] for example in test)


def test_a_set_that_grows_keeps_most_of_its_split() -> None:
    examples = [make_conversation(f"question {n}") for n in range(400)]
    before, after = set(split(examples[:200])[1]), set(split(examples)[1])
    assert len(before) == 20
    assert len(before - after) + len((after & set(examples[:200])) - before) <= 8


def test_a_file_of_one_question_is_refused() -> None:
    with pytest.raises(DataError, match="the examples in it have only one first question: at least two are"):
        split([make_conversation("one question")] * 20)
