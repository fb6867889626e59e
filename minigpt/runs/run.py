"""A trained run, opened: write text with it, measure a text with it."""

import codecs
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args

import torch

from minigpt.acceleration import accelerate
from minigpt.config import Config, SamplingConfig
from minigpt.data.corpus import Corpus, find_data, load_tiny_shakespeare
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.errors import ConfigError, DataError, RunError, UnknownCharacterError, suggest_name
from minigpt.generation import engine
from minigpt.model import TrainedModel
from minigpt.model.loss import (
    MAX_EVALUATED_TOKENS,
    TOKENS_PER_BATCH,
    TokenIds,
    compute_exact_loss,
    nats_to_bits,
    split_into_windows,
)
from minigpt.model.meta_init import build_empty
from minigpt.runs.record import Metrics, Record
from minigpt.runs.run_directory import RunDirectory, Weights
from minigpt.system.device import NUMBERS_PER_THREAD, explain_memory_errors, limit_threads, pick_device
from minigpt.system.files import explain_os_errors
from minigpt.tokenizers.base import Tokenizer, find_end_of_text, fingerprint


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An exact loss in nats per token, and what it was measured on.

    Attributes:
        loss: the mean over all predictions.
        bits_per_byte: all the bits of all predictions, over the bytes of what was predicted, as UTF-8: the one unit
            in which models with different tokenizers can be compared. Special tokens cost bits and have no bytes.
        bits_per_character: the same over its characters.
        predictions: how many were made.
        possible_predictions: how many could be made: more, if the text is so large that a part has to do.
    """

    loss: float
    bits_per_byte: float | None
    bits_per_character: float | None
    split: str
    characters: int
    source: str
    predictions: int
    possible_predictions: int

    @classmethod
    def of(
        cls,
        model: TrainedModel,
        ids: TokenIds,
        tokenizer: Tokenizer,
        split: str,
        source: str,
        most: int = MAX_EVALUATED_TOKENS,
    ) -> "Evaluation":
        """Measure a model on the ids of a text, the first of which is not predicted; on at most so many of them."""
        loss = compute_exact_loss(model, ids, most)
        lengths = lengths_of(tokenizer)
        counted = [
            (y.numel(), lengths[y].sum((0, 1))) for _, y in split_into_windows(ids, model.config.block_size, most)
        ]
        count = sum(n for n, _ in counted)
        size, characters = torch.stack([both for _, both in counted]).sum(0).tolist()
        total, first = nats_to_bits(loss) * count, int(lengths[torch.as_tensor(ids[:1])][0, 1])
        per_byte, per_character = total / max(1, size), total / max(1, characters)
        return cls(loss, per_byte, per_character, split, characters + first, source, count, len(ids) - 1)


def lengths_of(tokenizer: Tokenizer) -> torch.Tensor:
    """How many bytes each token stands for, and how many characters that begin in it: (V, 2); special ones for none."""
    special = set(tokenizer.special_tokens.values())
    tokens = [b"" if i in special else tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
    return torch.tensor([(len(token), sum(byte & 0xC0 != 0x80 for byte in token)) for token in tokens])


@dataclasses.dataclass(frozen=True)
class Run:
    """A run: what `minigpt.train` returns and `minigpt.load` opens.

    Attributes:
        path: its folder.
        config: the configuration, with `.model` and `.training`.
        tokenizer: text to token ids and back.
        model: the network, an `nn.Module` in evaluation mode.
        record: what run.json says: data, versions, exact validation loss, times.
        metrics: the evaluations, in order.
    """

    path: Path
    config: Config
    tokenizer: Tokenizer
    model: TrainedModel
    record: Record
    metrics: list[Metrics]

    @classmethod
    def open(cls, path: str | Path, weights: Weights = "last", device: str = "auto") -> "Run":
        """Open a run folder, with its last weights or those of its best evaluation.

        Every file is validated first. Raises RunError that names the one that is missing, damaged or
        from another version, DeviceError for a device that isn't there, ConfigError for other `weights`.
        """
        if weights not in get_args(Weights):
            raise ConfigError(f"weights must be one of {', '.join(get_args(Weights))}, not {weights!r}")
        folder = RunDirectory(Path(path))
        require_there(folder.path)
        folder.require_no_links_outside()
        config = folder.read_config()
        record = folder.read_record()
        tokenizer = folder.read_tokenizer(config, record)
        if record.status == "unfinished" and not folder.model.exists():
            raise RunError(f"{str(path)!r} has no weights yet: its training has only begun, or ended before it had any")
        metrics = folder.read_metrics(record)
        try:
            model = build_empty(config.model)  # takes no memory until the file has proved to fit
            if config.model.quantization != "none":
                from minigpt.model.quantization import quantize_model

                model = quantize_model(model, config.model.quantization)
        except RuntimeError:
            raise RunError(f"{str(folder.config)!r} is damaged: no model can be that large") from None
        folder.load_weights(model, weights)
        model = model.to(pick_device(device)).eval()
        accelerate(model, config)
        return cls(folder.path, config, tokenizer, model, record, metrics)

    @property
    def best(self) -> Metrics | None:
        """The evaluation with the lowest validation loss, the first of equals; None before the first."""
        return min(self.metrics, key=lambda metrics: metrics.validation_loss, default=None)

    def generate(self, prompt: str = "", **sampling: Any) -> str:
        """The prompt and the text the model continues it with.

        Keyword arguments are the settings of `SamplingConfig`: max_new_tokens, temperature, top_k, top_p,
        seed. Without a prompt the model starts from a newline, or as a document starts. Raises ConfigError for an
        impossible setting, UnknownCharacterError for a prompt outside the vocabulary.
        """
        return prompt + "".join(self.stream(prompt, **sampling))

    def stream(self, prompt: str = "", **sampling: Any) -> Iterator[str]:
        """The new text alone, piece by piece as it is written; arguments and errors as for `generate`."""
        config = SamplingConfig.from_keywords(**sampling)
        idx = self._prompt_ids(prompt)
        return self._stream(idx, config)

    def _stream(self, idx: torch.Tensor, config: SamplingConfig) -> Iterator[str]:
        tokens = engine.stream(self.model, idx, config)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # keeps half a character until the rest has come
        while True:
            with self._generation_threads(len(idx)):  # not beyond the yield: meanwhile the caller computes too
                token = next(tokens, None)
            content = b"" if token is None else self.tokenizer.decode_bytes(token.tolist())
            if piece := decoder.decode(content, final=token is None):
                yield piece
            if token is None:
                return

    def generate_several(self, num_samples: int, prompt: str = "", **sampling: Any) -> list[str]:
        """`num_samples` different texts at once, each the prompt and its continuation; as `generate` otherwise."""
        if num_samples < 1:
            raise ConfigError(f"num_samples must be a whole number at least 1, not {num_samples}")
        config = SamplingConfig.from_keywords(**sampling)
        with self._generation_threads(num_samples), explain_memory_errors("lower num_samples"):
            idx = self._prompt_ids(prompt).expand(num_samples, -1)
            rows = engine.generate(self.model, idx, config).tolist()
        return [prompt + self.tokenizer.decode(row) for row in rows]

    def loss(self, text: str) -> float:
        """The exact loss of a text in nats per token: every prediction made once, windows of block_size.

        Raises DataError for a text of fewer than two tokens, UnknownCharacterError as `encode` does.
        """
        ids = require_two(torch.tensor(self.tokenizer.encode(text)))
        with self._evaluation_threads():
            return compute_exact_loss(self.model, ids)

    def corpus(self, data: str | Path | None = None) -> Corpus | PreparedData:
        """What the run was trained on: in the file or folder `data` or, without it, where it was then.

        Raises FileError or DataError if it cannot be had any more, or has changed since.
        """
        if self.record.status == "imported":
            raise DataError(
                f"{str(self.path)!r} was trained elsewhere, on a text that is not known: name one with --data"
            )
        if self.record.instructions:
            raise DataError(f"{str(self.path)!r} was trained on instructions, not on a text: name one with --data")
        where = data or self.record.data_path
        corpus = find_data(where) if where else load_tiny_shakespeare()
        if corpus.sha256 != self.record.data_sha256:
            raise DataError(f"{corpus.source} is not the text this run was trained on: name that one with --data")
        return corpus

    def dataset(self, data: str | Path | None = None) -> Dataset:
        """The same, encoded and split as it was for the training. Raises the same."""
        corpus = self.corpus(data)
        data_or_ids = corpus if isinstance(corpus, PreparedData) else self.tokenizer.encode(corpus.text)
        return Dataset(data_or_ids, self.config)

    def evaluate(self, data: str | Path | None = None) -> "Evaluation":
        """The exact loss on `data`, a text file or prepared data, or on what the run was trained on.

        Of its own training text, wherever that lies, and of prepared data only the validation split counts; of any
        other text the whole. More than ten million predictions are not made; then they are evenly spread. Raises
        DataError and FileError as `find_data` does, for a training text that has changed since, and for data that
        were prepared with another tokenizer.
        """
        corpus = self.corpus() if data is None else find_data(data)
        ids: TokenIds
        split = "validation split"
        if isinstance(corpus, PreparedData):
            if corpus.index.tokenizer_sha256 != fingerprint(self.tokenizer):
                raise DataError(
                    f"{corpus.source} has another tokenizer than this run: name one prepared with the run's"
                )
            ids = corpus.val
        else:
            ids = torch.tensor(self.tokenizer.encode(corpus.text))
            if corpus.sha256 == self.record.data_sha256:
                ids = Dataset(ids, self.config).val
            else:
                split = "whole text"
        with self._evaluation_threads():
            return Evaluation.of(self.model, require_two(ids), self.tokenizer, split, corpus.source)

    def _generation_threads(self, batch_size: int) -> AbstractContextManager[int]:
        at_least = 2 * NUMBERS_PER_THREAD  # the compiled loops share even the windows of a small model out between two
        return limit_threads(max(at_least, batch_size * self.config.model.block_size * self.config.model.n_embd))

    def _evaluation_threads(self) -> AbstractContextManager[int]:
        return limit_threads(TOKENS_PER_BATCH * self.config.model.n_embd)

    def _prompt_ids(self, prompt: str) -> torch.Tensor:
        """The prompt's ids (1, T); for an empty one the start token's.

        That is the one between documents, if the run was trained on any, or else a newline, or else token 0.
        """
        end = find_end_of_text(self.tokenizer) if self.record.documents else None
        try:
            ids = self.tokenizer.encode(prompt or "\n") if prompt or end is None else [end]
        except UnknownCharacterError:
            if prompt:
                raise
            ids = [0]
        device = next(iter(self.model.parameters())).device
        return torch.tensor([ids], device=device)


def require_there(path: Path) -> None:
    """Raise RunError, with the nearest name, if there is no such folder."""
    with explain_os_errors("open the run", path):
        if not path.is_dir():
            siblings = [str(p) for p in path.parent.glob("*") if p.is_dir()]
            raise RunError(f"there is no run {str(path)!r}{suggest_name(str(path), siblings) or ': name its folder'}")


def require_two(ids: Any) -> Any:
    """The ids; DataError if there are too few to predict one from another."""
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} tokens has nothing to predict: it needs at least 2")
    return ids
