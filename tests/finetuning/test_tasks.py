"""The built-in tasks: their answers, what is held out, and what they refuse."""

import pytest
from conftest import make_text

from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.sft_dataset import Example
from minigpt.finetuning.tasks import PAIRS, STYLES, TASKS, Source, examples_of, held_out, require_tasks, sources_of

SPEECHES = [(name, f"{name} says one. {name} says two.") for name in ("A", "B", "C", "D")]
BANANA = Source(["banana"], SPEECHES, False, 60)


def drawn(task: str, source: Source, number: int = 200) -> list[Example]:
    return examples_of([task], source, number, seed=1)[task]


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
def test_answers_are_right(task: str, prompt: str, answer: str) -> None:
    assert drawn(task, BANANA, 1) == [Example.of(prompt, answer)]


def test_sums_are_those_of_paper() -> None:
    for example in drawn("add", BANANA):
        a, b = map(int, example.turns[0].text.removeprefix("add: ").split())
        assert 100 <= min(a, b) <= max(a, b) <= 999
        units, tens, all_of_it = map(int, example.answer.split(", "))
        assert (units, tens, all_of_it) == (a % 10 + b % 10, a % 100 + b % 100, a + b)


def test_tasks_on_dialogue() -> None:
    assert {(e.turns[0].text, e.answer) for e in drawn("who", BANANA)} == {("next: A, B, C", "D")}
    for example in drawn("line", BANANA):
        name, said = example.turns[0].text.split(" says: ")
        assert f"{said} {example.answer}" == f"{name} says one. {name} says two."
    styles = {e.turns[0].text.removeprefix("say ").split(":")[0] for e in drawn("style", BANANA)}
    assert styles == set(STYLES)


def test_what_is_held_out_is_never_learned_from() -> None:
    known, kept = sources_of(make_text(), 30, seed=0, kept=["reverse+upper"])
    assert not set(known.words) & set(kept.words)
    assert all(held_out(word) for word in kept.words)
    assert max(map(len, known.words)) <= 10
    assert [*known.speeches, *kept.speeches] == [*known.speeches + kept.speeches]
    assert 0 < len(kept.speeches) < len(known.speeches)
    for task in TASKS:
        if task not in ("line", "who"):
            learned = {e.turns[0].text for e in drawn(task, known)}
            assert not learned & {e.turns[0].text for e in drawn(task, kept)}, task
    pairs = {tuple(e.turns[0].text.split(":")[0].split(", ")) for e in drawn("pairs", known, 2000)}
    assert len(pairs) == len(PAIRS) - 2
    assert not {("reverse", "upper"), ("upper", "reverse")} & pairs
    assert drawn("pairs", known, 5) == drawn("pairs", known, 5)


def test_nothing_is_longer_than_the_model_sees() -> None:
    _, kept = sources_of(make_text(), 40, seed=0)
    for task in TASKS:
        assert all(len(e.turns[0].text) + len(e.answer) <= 40 for e in drawn(task, kept, 50)), task


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no task 'uper'; did you mean 'upper'"):
        require_tasks(["uper"])
    for kept in ("upper", "reverse+upper", "count+upper"):
        with pytest.raises(ConfigError, match=r"there is no task|cannot be asked"):
            require_tasks(["reverse+upper"], [kept])
    with pytest.raises(DataError, match="too little at once"):
        sources_of("some words", 16, 0)
    no_play, _ = sources_of("no play at all, only prose " * 100, 60, 0)
    with pytest.raises(DataError, match="task 'who' needs a play"):
        drawn("who", no_play)
    with pytest.raises(DataError, match="what task 'upper' asks is longer"):
        drawn("upper", Source(["banana"], [], False, 10))
