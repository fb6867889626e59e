"""Examples from a file or from the built-in tasks, split into training and test examples."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from minigpt.config import DataPath
from minigpt.data.corpus import Corpus, compute_sha256
from minigpt.data.document_split import hash_to_fraction
from minigpt.errors import DataError, FileError
from minigpt.finetuning.examples import Example, read_examples
from minigpt.finetuning.tasks import SPECIAL_TOKENS, make_examples, make_test_examples, require_tasks, split_source
from minigpt.runs.run import Run

MAX_TEST_EXAMPLES = 500  # for each task
TEST_SHARE = 0.1  # share of a file's questions that are held out
FILE_TASK = "the examples"  # the task of the examples of a file
T = TypeVar("T")


@dataclass(frozen=True)
class ExampleSplit:
    """Training and test examples.

    Attributes:
        train: examples to train on, by task.
        test: held-out examples, by task.
        source: where they are from, for messages.
    """

    train: dict[str, list[Example]]
    test: dict[str, list[Example]]
    source: str

    @property
    def all_train(self) -> list[Example]:
        """The training examples of all tasks."""
        return [*itertools.chain(*self.train.values())]

    @property
    def all_test(self) -> list[Example]:
        """The test examples of all tasks."""
        return [*itertools.chain(*self.test.values())]


def make_example_split(
    base: Run,
    data: str | Path | None,
    tasks: Sequence[str],
    test_only: Sequence[str],
    seed: int,
    own_text: DataPath = None,
) -> ExampleSplit:
    """Read the examples of a file or, without one, make examples of tasks.

    Args:
        base: the run whose text the tasks are made of.
        data: a file of examples, or None.
        tasks: names of tasks.
        test_only: tasks that are tested and never learned.
        seed: for the draws.
        own_text: where the base's text is; None for the recorded place.

    Raises:
        DataError: there are too few examples, or a line of the file is not an example.
        FileError: the file cannot be read.
        ConfigError: an unknown task.
    """
    if data is None:
        return _make_task_examples(base, tasks, test_only, seed, own_text)
    return _split_file(data, seed)


def split_by_questions(
    items: Sequence[T], questions: Sequence[Sequence[str]], source: str, kind: str
) -> tuple[list[T], list[T]]:
    """Split items into a training and a test part, where possible without a shared question.

    A tenth of the first questions is held out, at least one: those whose SHA-256 is lowest. So conversations that begin
    alike stay together, and a set that grows keeps most of its split.

    Args:
        items: what is split.
        questions: the questions of each item, in their order.
        source: where the items are from, for the message.
        kind: what they are called in the message, in the plural.

    Raises:
        DataError: all items have the same first question.
    """
    ranked = sorted({asked[0] for asked in questions}, key=lambda question: (hash_to_fraction(question), question))
    if len(ranked) < 2:
        raise DataError(
            f"the {kind} in {source} have only one first question: at least two are needed, "
            "one to learn and one to test"
        )
    held_questions = set(ranked[: max(1, round(TEST_SHARE * len(ranked)))])
    pairs = [*zip(items, questions, strict=True)]
    held_out = [(item, asked) for item, asked in pairs if asked[0] in held_questions]
    train = [(item, asked) for item, asked in pairs if asked[0] not in held_questions]
    # A held-out conversation is left out of the test if another one, which is learned, asks one of its questions.
    learned = {question for _, asked in train for question in asked}
    test = [item for item, asked in held_out if learned.isdisjoint(asked)]
    # Every conversation may go on with "continue": then only the first questions must not be learned.
    test = test or [item for item, asked in held_out if asked[0] not in learned]
    # If all first questions are learned too, the training items that ask them are left out, unless that leaves none.
    if not test:
        train = [(item, asked) for item, asked in train if held_questions.isdisjoint(asked)] or train
        test = [item for item, _ in held_out]
    return [item for item, _ in train], test


def report_split(say: Callable[[str], None], source: str, train: Sequence[Any], test: Sequence[Any], kind: str) -> None:
    """Say how many different items are learned, and how many are held out.

    Args:
        say: prints a line.
        source: where the items are from.
        train: the items to learn.
        test: the items that are held out.
        kind: what the items are called, in the plural.
    """
    say(f"text   {source}: {count_different(train, kind)} to learn, {len(test):,} held out")


def count_different(items: Sequence[Any], noun: str) -> str:
    """Return how many items there are; where some are repeated, how many different ones in how many rows."""
    different = len(set(items))
    if different == len(items):
        return f"{different:,} {noun}"
    return f"{different:,} different {noun} in {len(items):,} rows"


def make_corpus(examples: Iterable[Example], source: str) -> Corpus:
    """Return examples as a corpus: run.json has its size and its SHA-256."""
    text = "\n".join(example.as_json for example in examples)
    return Corpus(text, source, (), compute_sha256(text.encode()))


def _split_file(path: str | Path, seed: int) -> ExampleSplit:
    """Split the examples of a file; repeated test examples count once."""
    examples = read_examples(path)
    train, test = split_by_questions(examples, [each.questions for each in examples], f"{str(path)!r}", "examples")
    test = list(dict.fromkeys(test))
    random.Random(seed).shuffle(test)
    return ExampleSplit({FILE_TASK: train}, {FILE_TASK: test[:MAX_TEST_EXAMPLES]}, f"the examples in {path}")


def _make_task_examples(
    base: Run, tasks: Sequence[str], test_only: Sequence[str], seed: int, own_text: DataPath
) -> ExampleSplit:
    """Make examples of tasks from the base's text, if it can be read, and from random words."""
    require_tasks(tasks, test_only)
    try:
        corpus = base.corpus(own_text)
        text = corpus.text if isinstance(corpus, Corpus) else ""
    except (DataError, FileError):
        text = ""
    max_characters = base.config.model.block_size - SPECIAL_TOKENS
    train_source, test_source = split_source(text, max_characters, seed, test_only)
    asked = [*dict.fromkeys([*tasks, *test_only])]
    test = make_test_examples(asked, test_source, MAX_TEST_EXAMPLES, seed + 1)
    prompts = {question for example in itertools.chain(*test.values()) for question in example.questions}
    train = make_examples(tasks, train_source, None, seed, prompts)
    return ExampleSplit(train, test, f"tasks made here: {', '.join(tasks)}")
