"""Every exercise: the reference passes, each wrong variant gets its own message, the skeleton is empty."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from learn_solutions import make_solution
from torch import Tensor

from minigpt.learn.catalog import ENTRIES, Entry, load_exercise
from minigpt.learn.judge import check, expect, find_cases, find_mistake, judge, make_namespace
from minigpt.learn.outcomes import Raised, is_same, run_cases
from minigpt.learn.parts import run_learner_file
from minigpt.learn.skeleton import TODO, make_skeleton

BY_NUMBER = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


@BY_NUMBER
def test_the_reference_passes_and_raises_nothing(entry: Entry) -> None:
    exercise = load_exercise(entry)
    assert tuple(reference.__name__ for reference in exercise.references) == entry.defines
    assert not any(isinstance(outcome, Raised) for outcome in expect(exercise))
    assert judge(entry, exercise, make_namespace(exercise))


@BY_NUMBER
def test_each_wrong_variant_gets_exactly_its_own_message(entry: Entry) -> None:
    exercise = load_exercise(entry)
    outcomes = {
        mistake.when: run_cases(exercise.cases, make_namespace(exercise, mistake.variants))
        for mistake in exercise.mistakes
    }
    assert len(outcomes) == len(exercise.mistakes)
    for (one, found), (other, too) in itertools.combinations({"nothing": expect(exercise), **outcomes}.items(), 2):
        assert not all(map(is_same, found, too)), f"{one!r} gives the same results as {other!r}"
    for mistake in exercise.mistakes:
        found = outcomes[mistake.when]
        named = find_mistake(exercise, dict(enumerate(found)))
        assert named is not None
        assert named.when == mistake.when
        own = find_cases(exercise, mistake)
        assert any(not is_same(expect(exercise)[n], found[n]) for n in own), (
            f"no case of its own shows {mistake.when!r}"
        )


@BY_NUMBER
def test_a_skeleton_has_no_body_and_says_so(entry: Entry, tmp_path: Path) -> None:
    exercise = load_exercise(entry)
    skeleton = make_skeleton(entry, exercise)
    assert skeleton.count(TODO) >= len(exercise.references)
    assert max(map(len, skeleton.splitlines())) <= 120
    path = tmp_path / entry.file_name
    path.write_text(skeleton)
    verdict = judge(entry, exercise, run_learner_file(path), {str(path)})
    assert not verdict
    assert "is still to be written" in verdict.message
    assert verdict.line.endswith(TODO)


@BY_NUMBER
def test_the_solved_file_passes_and_its_experiment_runs(entry: Entry, capsys: pytest.CaptureFixture) -> None:
    exercise = load_exercise(entry)
    solution = make_solution(entry)
    assert TODO not in solution
    names: dict = {"__name__": "__main__", "__file__": __file__}
    exec(compile(solution.replace("seconds=5.0", "seconds=0.1"), entry.file_name, "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) > 1
    assert judge(entry, exercise, SimpleNamespace(**names))


@BY_NUMBER
def test_every_text_and_hint_is_complete(entry: Entry) -> None:
    exercise = load_exercise(entry)
    assert len(exercise.hints) == 3
    for mistake in exercise.mistakes:
        assert not mistake.when.endswith(".")
        assert mistake.variants.keys() <= set(entry.defines)


def test_two_wrong_functions_do_not_hide_each_other() -> None:
    """The learner's other functions may be wrong too, or call the wrong one."""

    def build_vocabulary(text: str) -> tuple[dict[str, int], dict[int, str]]:
        characters = sorted(set(text))
        return {c: i for i, c in enumerate(characters, 1)}, dict(enumerate(characters, 1))

    def encode(text: str, stoi: dict[str, int]) -> list[int]:
        return []

    verdict = check(1, build_vocabulary, encode)
    assert verdict.mistake == "the ids start at 1 instead of 0"


def test_a_named_mistake_shows_the_line_of_its_error() -> None:
    def embed(idx: Tensor, token_table: Tensor, position_table: Tensor) -> Tensor:
        return token_table[idx] + position_table

    verdict = check(12, embed)
    assert verdict.mistake == "the whole position table is added, so that T must be block_size"
    assert verdict.line.endswith(": return token_table[idx] + position_table")
