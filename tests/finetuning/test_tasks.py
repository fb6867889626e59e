"""The built-in tasks: their answers, what they hold out for the test, and what they refuse."""

import random

import pytest
from conftest import make_text

from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.examples import Example
from minigpt.finetuning.tasks import (
    PAIRS,
    SPEECH,
    STYLES,
    TASKS,
    TaskSource,
    is_held_out,
    make_examples,
    make_test_examples,
    require_tasks,
    split_source,
)

SPEECHES = [(name, f"{name} says one. {name} says two.") for name in ("A", "B", "C", "D")]
BANANA = TaskSource(["banana"], SPEECHES, False, 60)


def make_task_examples(task: str, source: TaskSource, number: int = 200) -> list[Example]:
    return make_examples([task], source, number, seed=1)[task]


@pytest.mark.parametrize(
    ("task", "prompt", "answer"),
    [
        ("upper", "upper: banana", "BANANA"),
        ("first", "first: banana", "b"),
        ("last", "last: banana", "a"),
        ("count", "count: banana", "6"),
        ("reverse", "reverse: banana", "ananab"),
        ("sort", "sort: banana", "aaabnn"),
        ("title", "title: banana", "Banana"),
        ("rest", "rest: banana", "anana"),
        ("start", "start: banana", "banan"),
        ("lower", "lower: banana", "banana"),
        ("swap", "swap: banana", "aananb"),
        ("reverse+upper", "reverse, upper: banana", "ananab, ANANAB"),
        ("sort+last", "sort, last: banana", "aaabnn, n"),
    ],
)
def test_the_answer_of_a_word_task_is_right(task: str, prompt: str, answer: str) -> None:
    assert make_task_examples(task, BANANA, 1) == [Example.from_pair(prompt, answer)]


def test_a_sum_is_added_digit_by_digit() -> None:
    for example in make_task_examples("add", BANANA):
        a, b = map(int, example.turns[0].text.removeprefix("add: ").split())
        assert 100 <= min(a, b) <= max(a, b) <= 999
        units, tens, all_of_it = map(int, example.answer.split(", "))
        assert (units, tens, all_of_it) == (a % 10 + b % 10, a % 100 + b % 100, a + b)


def test_dialogue_tasks_complete_speeches_and_name_the_next_speaker() -> None:
    assert {(e.turns[0].text, e.answer) for e in make_task_examples("who", BANANA)} == {("next: A, B, C", "D")}
    for example in make_task_examples("line", BANANA):
        name, said = example.turns[0].text.split(" says: ")
        assert f"{said} {example.answer}" == f"{name} says one. {name} says two."
    styles = {e.turns[0].text.removeprefix("say ").split(":")[0] for e in make_task_examples("style", BANANA)}
    assert styles == set(STYLES)


def test_test_examples_are_never_in_the_training_examples() -> None:
    rng = random.Random(0)
    names = rng.choices("ABCDEFGHIJKLMNO", k=400)
    speeches = [f"{name}:\nhas {rng.randrange(99)} or {rng.randrange(99)}" for name in names]
    text = "\n\n".join([make_text(), *speeches])
    train, test = split_source(text, 30, seed=0, test_only=["reverse+upper"])
    assert not set(train.words) & set(test.words)
    assert all(is_held_out(word) for word in test.words)
    assert max(map(len, train.words)) <= 10
    assert [*train.speeches, *test.speeches] == SPEECH.findall(text)
    assert 0 < len(test.speeches) < len(train.speeches)
    for task in TASKS:
        prompts = [e.turns[0].text for e in make_test_examples([task], test, 50, seed=2)[task]]
        assert len(prompts) == len(set(prompts)) > 0, task
        learned = make_examples([task], train, 200, seed=1, excluded=prompts)[task]
        assert not {e.turns[0].text for e in learned} & {*prompts}, task
    pairs = {tuple(e.turns[0].text.split(":")[0].split(", ")) for e in make_task_examples("pairs", train, 2000)}
    assert len(pairs) == len(PAIRS) - 2
    assert not {("reverse", "upper"), ("upper", "reverse")} & pairs
    assert make_task_examples("pairs", train, 5) == make_task_examples("pairs", train, 5)


def test_a_sum_is_held_out_in_both_orders() -> None:
    train, test = split_source("", 40, seed=0)
    sums = [
        {frozenset(e.turns[0].text.split()[1:]) for e in make_task_examples("add", part, 20_000)}
        for part in (train, test)
    ]
    assert not sums[0] & sums[1]


def test_a_source_with_few_prompts_gives_few_test_examples() -> None:
    [example] = make_test_examples(["who"], BANANA, 500, seed=0)["who"]
    assert example == Example.from_pair("next: A, B, C", "D")
    with pytest.raises(DataError, match="too few prompts for task 'who' to learn some and test with others"):
        make_examples(["who"], BANANA, 5, seed=0, excluded=example.questions)


def test_every_example_fits_into_the_context() -> None:
    _, test = split_source(make_text(), 40, seed=0)
    for task in TASKS:
        assert all(len(e.turns[0].text) + len(e.answer) <= 40 for e in make_task_examples(task, test, 50)), task


def test_unknown_and_impossible_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no task 'uper'; did you mean 'upper'"):
        require_tasks(["uper"])
    for test_only in ("upper", "reverse+upper", "count+upper"):
        with pytest.raises(ConfigError, match=r"there is no task|cannot be tested"):
            require_tasks(["reverse+upper"], [test_only])
    with pytest.raises(DataError, match="block_size is too small"):
        split_source("some words", 16, 0)
    no_play, _ = split_source("no play at all, only prose " * 100, 60, 0)
    with pytest.raises(DataError, match="task 'who' needs a play"):
        make_task_examples("who", no_play)
    with pytest.raises(DataError, match="the questions of task 'upper' are longer"):
        make_task_examples("upper", TaskSource(["banana"], [], False, 10))
