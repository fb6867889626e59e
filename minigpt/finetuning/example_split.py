"""Where examples come from: a file of them, or the built-in tasks; some to learn from, some held out."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from minigpt.data.corpus import Corpus, compute_sha256
from minigpt.data.document_split import hash_to_fraction
from minigpt.errors import DataError, FileError
from minigpt.finetuning.sft_dataset import Example, read_examples
from minigpt.finetuning.tasks import SPECIAL_TOKENS, make_examples, require_tasks, split_source
from minigpt.runs.run import Run

ASKED = 500  # held-out examples of each task, by which the accuracy is measured
VALIDATING = 0.1  # share of a file's examples
T = TypeVar("T")
OWN = "the examples"  # what those of a file are called among tasks


@dataclass(frozen=True)
class Material:
    """Examples by task, to learn from and held out, and where they are from."""

    train: dict[str, list[Example]]
    test: dict[str, list[Example]]
    source: str

    @property
    def all(self) -> tuple[list[Example], list[Example]]:
        """Those of all tasks."""
        return [*itertools.chain(*self.train.values())], [*itertools.chain(*self.test.values())]

    def corpus(self) -> Corpus:
        """All of them as a text, for the record."""
        return corpus_of(itertools.chain(*self.all), self.source)


def material_of(base: Run, data: str | Path | None, tasks: Sequence[str], kept: Sequence[str], seed: int) -> Material:
    """The examples of a file or, without one, of tasks; those `kept` are tested and never learned.

    Raises DataError for too few examples, FileError and ConfigError as `read_examples` and `require_tasks` do.
    """
    return of_tasks(base, tasks, kept, seed) if data is None else of_file(data, seed)


def of_file(path: str | Path, seed: int) -> Material:
    """The examples of a file, a tenth of them held out: which, the SHA-256 of each one's prompt decides."""
    examples = read_examples(path)
    train, test = parted(examples, [example.asked for example in examples], f"{str(path)!r}", "examples")
    test = list(dict.fromkeys(test))
    random.Random(seed).shuffle(test)
    return Material({OWN: train}, {OWN: test[:ASKED]}, f"the examples in {path}")


def parted(items: Sequence[T], asked: Sequence[str], where: str, what: str) -> tuple[list[T], list[T]]:
    """Those to learn from and those held out, of which the SHA-256 of what each asks decides: no question is in both.

    Raises DataError, with the place and what they are, if either part has none.
    """
    train: list[T] = []
    test: list[T] = []
    for item, question in zip(items, asked, strict=True):
        (test if hash_to_fraction(question) < VALIDATING else train).append(item)
    if not train or not test:
        raise DataError(f"{where} has {len(items)} {what}: too few to learn from some and test with others")
    return train, test


def corpus_of(examples: Iterable[Example], source: str) -> Corpus:
    """Examples as a text, for the record."""
    written = "\n".join(example.written for example in examples)
    return Corpus(written, source, None, compute_sha256(written.encode()))


def of_tasks(base: Run, tasks: Sequence[str], kept: Sequence[str], seed: int) -> Material:
    """Examples of the built-in tasks on the base's text, and on made-up words."""
    require_tasks(tasks, kept)
    try:
        corpus = base.corpus()
        text = corpus.text if isinstance(corpus, Corpus) else ""
    except (DataError, FileError):
        text = ""
    known, unknown = split_source(text, base.config.model.block_size - SPECIAL_TOKENS, seed, kept)
    train = make_examples(tasks, known, None, seed)
    test = make_examples([*dict.fromkeys([*tasks, *kept])], unknown, ASKED, seed + 1)
    return Material(train, test, f"tasks made here: {', '.join(tasks)}")
