"""The measurements of a ladder, and its folder on disk.

ladder.json   every measurement; an interrupted ladder continues from here
ladder.md     the tables and the samples
ladder.png    the loss of each rung
"""

import dataclasses
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.config import Config
from minigpt.data.corpus import Corpus
from minigpt.errors import FileError, RunError
from minigpt.studies.ladder.ngram_comparison import Blend, Comparison
from minigpt.system.advice import format_setting
from minigpt.system.files import explain_os_errors, lock_file, read_text, require_inside, write_atomic
from minigpt.system.json_files import MAX_JSON_BYTES, parse_dataclass, parse_json
from minigpt.system.plotting import write_png
from minigpt.system.terminal import escape_control_characters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
UNRELATED = {  # settings that do not change a ladder's figures
    *("device", "eval_interval", "eval_windows", "snapshots"),
    *("implementation", "compile", "checkpoint_activations"),
}


@dataclass(frozen=True)
class Measurement:
    """The measurements of one rung with one seed, or of one n-gram model.

    Attributes:
        number: the rung's number, from 0; or the n-gram model's order.
        name: the rung's name.
        idea: what is new in this rung.
        learned: True for gradient descent, False for counting.
        seed: the seed of weights, batches and sample.
        loss: exact validation loss in nats per character.
        parameters: how many numbers the model has learned or counted.
        seconds: of training, without evaluation.
        characters: read in training, with repetition.
        sample: what the model writes.
    """

    number: int
    name: str
    idea: str
    learned: bool
    seed: int
    loss: float
    parameters: int
    seconds: float
    characters: int
    sample: str


@dataclass(frozen=True)
class VerbatimShares:
    """The shares of three texts that stand in the training text, in passages of `length` characters or more."""

    seed: int
    length: int
    transformer: float
    ngram: float
    validation: float


@dataclass(frozen=True)
class RungSummary:
    """A rung's measurements over all its seeds.

    Attributes:
        result: the first seed's.
        seeds: the number of seeds.
        loss: the mean loss.
        spread: the highest loss minus the lowest.
        characters_per_second: the median.
    """

    result: Measurement
    seeds: int
    loss: float
    spread: float
    characters_per_second: float


LISTS = {
    "rungs": Measurement,
    "ngrams": Measurement,
    "blends": Blend,
    "comparisons": Comparison,
    "copied": VerbatimShares,
}


@dataclass
class Ladder:
    """All measurements of a ladder, in the order in which they were made."""

    settings: dict[str, Any]
    rungs: list[Measurement] = field(default_factory=list)
    ngrams: list[Measurement] = field(default_factory=list)
    blends: list[Blend] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    copied: list[VerbatimShares] = field(default_factory=list)
    seconds: float = 0.0

    def summarize(self) -> list[RungSummary]:
        """Return the measured rungs, from the lowest, each over all its seeds."""
        numbers = sorted({result.number for result in self.rungs})
        return [_summarize_rung([result for result in self.rungs if result.number == number]) for number in numbers]


def _summarize_rung(results: list[Measurement]) -> RungSummary:
    """Return one rung's results over all its seeds."""
    losses = [result.loss for result in results]
    rates = [result.characters / max(result.seconds, 1e-9) for result in results]
    return RungSummary(
        results[0], len(results), statistics.mean(losses), max(losses) - min(losses), statistics.median(rates)
    )


class LadderDirectory:
    """The files of a ladder. Reading raises RunError, which names the file; writing raises FileError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measurements = path / "ladder.json"
        self.report = path / "ladder.md"
        self.figure = path / "ladder.png"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the folder, and keep other processes from measuring into it. Raise RunError if one already does."""
        with explain_os_errors("create the ladder's folder", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        message = (
            f"another process is measuring the ladder in {str(self.path)!r}: "
            f"wait for it, or choose another {format_setting('out')}"
        )
        with lock_file(self.path / ".lock", message, RunError):
            yield

    def open(self, config: Config, corpus: Corpus) -> Ladder:
        """Return the ladder in this folder, or start a new one.

        Raises:
            RunError: the folder has a ladder of another text or of other settings, or something else.
        """
        settings = {"data_sha256": corpus.sha256, **vars(config.model), **vars(config.training)}
        settings = {name: value for name, value in settings.items() if name not in UNRELATED}
        require_inside(self.path, [self.measurements, self.report, self.figure])
        with explain_os_errors("create the ladder's folder", self.path):
            if not self.measurements.exists():
                ours = {self.report.name, self.figure.name}  # these remain after the user deletes ladder.json
                if any(path.name[0] != "." and path.name not in ours for path in self.path.iterdir()):
                    raise RunError(
                        f"{str(self.path)!r} is not empty, and has no ladder: choose another {format_setting('out')}"
                    )
                self.save(Ladder(settings))  # refuse a folder that is not writable before the first rung
                return Ladder(settings)
        ladder = self.read()
        for name, value in settings.items():
            if ladder.settings.get(name) != value:
                there, asked = (str(v)[:12] for v in (ladder.settings.get(name), value))
                raise RunError(
                    f"{str(self.path)!r} has a ladder with {name} {there}, not {asked}: "
                    f"choose another {format_setting('out')}"
                )
        self.save(ladder)
        return ladder

    def read(self) -> Ladder:
        """Read the ladder in this folder."""
        where = f"{str(self.measurements)!r}"
        try:
            text = read_text(self.measurements, MAX_JSON_BYTES)
        except FileError as error:
            raise RunError(str(error)) from None
        try:
            content = parse_json(text, where)
        except RunError as error:
            raise RunError(f"{error}: delete it to start again") from None
        if not isinstance(content, dict) or content.keys() != {"format", "settings", "seconds", *LISTS}:
            raise RunError(f"{where} is damaged or from another version: delete it to start again")
        if content.pop("format") != FORMAT:
            raise RunError(f"{where} is from another version: delete it to start again")
        kinds = {"settings": dict, "seconds": float} | dict.fromkeys(LISTS, list)
        for name, kind in kinds.items():
            if not isinstance(content[name], kind):
                raise RunError(f"{where} is damaged, {name} is no {kind.__name__}: delete it to start again")
        for name, entry in LISTS.items():
            content[name] = [parse_dataclass(entry, values, f"{where}, {name}") for values in content[name]]
        return Ladder(**content)

    def save(self, ladder: Ladder) -> None:
        """Write ladder.json."""
        content = {"format": FORMAT, **dataclasses.asdict(ladder)}
        write_atomic(self.measurements, json.dumps(content, indent=1).encode() + b"\n")

    def write_report(self, text: str, figure: "Figure") -> None:
        """Write ladder.md and ladder.png."""
        write_atomic(self.report, escape_control_characters(text).encode())
        write_png(self.figure, figure)
