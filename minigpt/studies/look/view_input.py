"""What the views of a run look at: the run, a text, and the run's own data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from minigpt.config import DataPath
from minigpt.data.corpus import Corpus
from minigpt.data.dataset import Dataset
from minigpt.data.text_format import TextFormat
from minigpt.errors import DataError
from minigpt.model.loss import MAX_EVALUATED_TOKENS
from minigpt.runs.base_runs import find_trained_on_text
from minigpt.runs.recorded_data import find_training_data
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.studies.look.curves import get_unit
from minigpt.studies.text_window import encode_window
from minigpt.system.advice import advise_text

TEXT_LENGTH = 500  # characters of the validation text to look at, unless the user gives a text


@dataclass(frozen=True)
class ViewInput:
    """What a view looks at.

    Attributes:
        run: the run.
        given_text: the text that the user gave, or None.
        others: other runs, for the learning curves.
        data: where the run's training text is now, if it was moved; of an imported run, a text.
    """

    run: Run
    given_text: str | None
    others: Sequence[Run]
    data: DataPath

    @cached_property
    def dataset(self) -> Dataset:
        """The run's own text, split as in training. Raise DataError or FileError if it is missing.

        Of a run that learned instructions or preferences, it is the text of the base.
        """
        run = self.run
        if self.data is None and run.info.instructions:
            return Dataset(run.tokenizer.encode(find_base_text(run).text), run.config)
        return run.dataset(self.data)

    def decode(self, ids: Any) -> str:
        """Return the text of token ids (N,), without the tokens between documents."""
        special = set(self.run.tokenizer.special_tokens.values())
        return self.run.tokenizer.decode(i for i in ids.tolist() if i not in special)

    @cached_property
    def text(self) -> str:
        """The text to look at: the given one, or the beginning of the validation text."""
        if self.given_text is not None:
            return self.given_text
        return self.decode(self.dataset.val[:TEXT_LENGTH])

    @cached_property
    def training_text(self) -> str:
        """The training split as text, of a large corpus its first ten million tokens."""
        return self.decode(self.dataset.train[:MAX_EVALUATED_TOKENS])

    @property
    def ids(self) -> Tensor:
        """The last token ids of the text, at most block_size (T,), on the model's device."""
        return encode_window(self.run, self.text)

    @property
    def unit(self) -> str:
        """What a token of the run is."""
        return get_unit(self.run)

    @property
    def vocabulary(self) -> list[str]:
        """Every token as text, in the order of the ids."""
        return [self.run.tokenizer.decode([i]) for i in range(self.run.tokenizer.vocab_size)]


def find_base_text(run: Run) -> Corpus:
    """Return the text of the base of an instruction-tuned run, or of the base's base. Raise DataError or FileError."""
    path, info = find_trained_on_text(run.path, run.info)
    text_format = TextFormat.from_settings(RunDirectory(path).read_config().training)
    corpus = find_training_data(path, info, None, text_format)
    if not isinstance(corpus, Corpus):
        raise DataError(f"{corpus.source} have other tokens than {str(run.path)!r}: {advise_text('a text')}")
    return corpus
