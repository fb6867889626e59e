"""A trained run that has been opened: generate text with it, and measure texts with it."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args, overload

import torch

from minigpt.acceleration import accelerate, should_use_loops
from minigpt.config import Config, DataPath, SamplingConfig
from minigpt.config_fields import list_settings, make_html_table
from minigpt.data.array_encoding import encode_text
from minigpt.data.corpus import Corpus, find_data
from minigpt.data.dataset import Dataset, find_boundary
from minigpt.data.prepared_data import PreparedData
from minigpt.data.text_format import TextFormat
from minigpt.errors import ConfigError, DataError, RunError
from minigpt.generation import engine
from minigpt.model import TrainedModel
from minigpt.model.language_model import get_device
from minigpt.model.loss import TOKENS_PER_BATCH, TokenIds, compute_exact_loss
from minigpt.model.meta_init import build_empty_model
from minigpt.model.quantization import quantize_model
from minigpt.runs.chat import Chat
from minigpt.runs.exact_loss import ExactLoss, require_two_tokens
from minigpt.runs.recorded_data import find_training_data
from minigpt.runs.run_directory import RunDirectory, Weights
from minigpt.runs.run_info import Metrics, RunInfo, find_best
from minigpt.runs.run_overview import RunOverview, find_start_ids
from minigpt.system.advice import advise_text
from minigpt.system.device import (
    ELEMENTS_PER_THREAD,
    explain_memory_errors,
    keep_freed_memory,
    limit_threads,
    pick_device,
)
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.system.text_encoding import require_text
from minigpt.tokenizers.base import Tokenizer, compute_fingerprint, decode_stream


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run: what `minigpt.train` returns and `minigpt.load` opens.

    Attributes:
        path: its directory.
        config: the configuration, with `.model` and `.training`.
        tokenizer: converts text to token ids and back.
        model: the network, an `nn.Module` in evaluation mode.
        info: the content of run.json: data, versions, exact validation loss, times.
        metrics: the evaluations, in order.
    """

    path: Path
    config: Config
    tokenizer: Tokenizer
    model: TrainedModel
    info: RunInfo
    metrics: list[Metrics]

    @classmethod
    @use_pytorch_defaults()
    def open(cls, path: str | Path, weights: Weights = "last", device: str = "auto") -> "Run":
        """Open a run's directory. Every file is validated first.

        Args:
            path: the directory.
            weights: "last", or "best" for those of the best evaluation.
            device: where the model goes: "auto", "cpu", "cuda" or "mps".

        Raises:
            RunError: a file is missing, damaged or from another version; the message names it.
            DeviceError: the machine does not have the device.
            ConfigError: `weights` is neither "last" nor "best".
        """
        if weights not in get_args(Weights):
            raise ConfigError(f"weights must be one of {', '.join(get_args(Weights))}, not {weights!r}")
        overview = RunOverview.read(Path(path))
        directory, config = RunDirectory(overview.path), overview.config
        try:
            model = build_empty_model(config.model)  # takes no memory until the file has proved to fit
            if config.model.quantization != "none":
                model = quantize_model(model, config.model.quantization)
        except RuntimeError:
            raise RunError(f"{str(directory.config)!r} is damaged: no model can be that large") from None
        directory.load_weights(model, weights)
        model = model.to(pick_device(device)).eval()
        accelerate(model, config)
        return cls(overview.path, config, overview.tokenizer, model, overview.info, overview.metrics)

    @property
    def best(self) -> Metrics | None:
        """The first evaluation with the lowest validation loss; None before the first evaluation."""
        return find_best(self.metrics)

    def __repr__(self) -> str:
        return f"<Run {', '.join(f'{name} {value}' for name, value in self._describe().items())}>"

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return make_html_table(self._describe())

    def _describe(self) -> dict[str, str]:
        """Return what somebody wants to know first about the run."""
        info, loss = self.info, self.info.validation_loss
        lines = {
            "path": f"{str(self.path)!r}",
            "preset": self.config.preset,
            "parameters": f"{info.parameters:,}",
            "steps": f"{info.step:,}",
            "status": info.status,
        }
        return lines if loss is None else {**lines, "validation loss": f"{loss:.4f}"}

    @overload
    def generate(self, prompt: str = "", **sampling: Any) -> str: ...

    @overload
    def generate(self, prompt: Sequence[str], **sampling: Any) -> list[str]: ...

    @list_settings(SamplingConfig)
    def generate(self, prompt: str | Sequence[str] = "", **sampling: Any) -> str | list[str]:
        """Return the prompt and the text with which the model continues it; of a list of prompts, a list of texts.

        Args:
            prompt: the beginning of the text. Without one the model starts from a newline or, if it was trained on
                documents, from the start of a document. In a list, each prompt is continued as if it were alone.
            **sampling: settings of `SamplingConfig`: max_new_tokens, temperature, top_k, top_p, seed.

        Raises:
            ConfigError: an impossible setting.
            UnknownCharacterError: a character that is not in the vocabulary.
        """
        if isinstance(prompt, str):
            return prompt + "".join(self.stream(prompt, **sampling))
        return [self.generate(each, **sampling) for each in prompt]

    @list_settings(SamplingConfig)
    def stream(self, prompt: str = "", **sampling: Any) -> Iterator[str]:
        """Yield the new text in pieces while it is generated. Arguments and errors are those of `generate`."""
        config = SamplingConfig.from_keywords(**sampling)
        return self.stream_from_ids(self.encode_prompt(prompt), config)  # a second generator: errors come at once

    def stream_from_ids(self, ids: list[int], config: SamplingConfig, stop: Collection[int] = ()) -> Iterator[str]:
        """Yield the text that continues a prompt of token ids, in pieces, while it is generated.

        Args:
            ids: the prompt, at least one token.
            config: how to sample, and how many tokens.
            stop: tokens that end the text.
        """
        return decode_stream(self.tokenizer, self.stream_ids(ids, config, stop))

    @list_settings(SamplingConfig)
    def chat(self, *, temperature: float = 0.7, **sampling: Any) -> Chat:
        """Start a conversation: `chat = run.chat()`, then `chat.ask("Hello")`, as often as you like.

        A model that has learned no instructions continues what it is told.

        Args:
            temperature: as for `generate`; 0 takes the most likely token.
            **sampling: as for `generate`.
        """
        return Chat(self, SamplingConfig.from_keywords(temperature=temperature, **sampling))

    def stream_ids(self, ids: list[int], config: SamplingConfig, stop: Collection[int] = ()) -> Iterator[int]:
        """Yield the token ids that continue a prompt, while they are generated. Arguments as for `stream_from_ids`."""
        tokens = engine.stream(self.model, torch.tensor([ids], device=get_device(self.model)), config, stop)
        has_loops = should_use_loops(self.model, config.max_new_tokens)
        while True:
            with self._limit_generation_threads(1, has_loops):  # not around the yield: the caller computes meanwhile
                token = next(tokens, None)
            if token is None:
                return
            yield int(token)

    @list_settings(SamplingConfig)
    def generate_several(self, num_samples: int, prompt: str = "", **sampling: Any) -> list[str]:
        """Return several different texts, generated as one batch.

        Args:
            num_samples: how many.
            prompt: as for `generate`.
            **sampling: as for `generate`.

        Raises:
            ConfigError: an impossible setting.
            UnknownCharacterError: a character that is not in the vocabulary.
            OutOfMemoryError: the batch does not fit in memory.
        """
        if num_samples < 1:
            raise ConfigError(f"num_samples must be a whole number at least 1, not {num_samples}")
        config = SamplingConfig.from_keywords(**sampling)
        with self._limit_generation_threads(num_samples), explain_memory_errors("lower num_samples"):
            idx = torch.tensor([self.encode_prompt(prompt)], device=get_device(self.model)).expand(num_samples, -1)
            rows = engine.generate(self.model, idx, config).tolist()
        return [prompt + self.tokenizer.decode(row) for row in rows]

    @use_pytorch_defaults()
    def loss(self, text: str) -> float:
        """Return the exact loss of a text in nats per token: each token is predicted once, in windows of block_size.

        Raises:
            DataError: the text has fewer than two tokens, or is the name of a file.
            UnknownCharacterError: a character that is not in the vocabulary.
        """
        require_text(text, "run.evaluate({name}) measures the file, and run.loss() a text")
        ids = encode_text(self.tokenizer, text)
        require_two_tokens(ids)
        with self._limit_evaluation_threads():
            return compute_exact_loss(self.model, ids)

    def corpus(self, data: DataPath = None) -> Corpus | PreparedData:
        """Return the data that the run was trained on.

        Args:
            data: where the data are now; by default where run.json says, relative to the current folder. Of an
                imported or instruction-tuned run, any text.

        Raises:
            FileError: a file cannot be read.
            DataError: the data are unknown or have changed.
        """
        text_format = TextFormat.from_settings(self.config.training)
        if data is not None and (self.info.status == "imported" or self.info.instructions):
            return find_data(data, text_format=text_format)
        if self.info.status == "imported":
            raise DataError(
                f"{str(self.path)!r} was trained elsewhere, on a text that is not known: {advise_text('one')}"
            )
        if self.info.instructions:
            raise DataError(f"{str(self.path)!r} was trained on instructions, not on a text: {advise_text('one')}")
        return find_training_data(self.path, self.info, data, text_format)

    def dataset(self, data: DataPath = None) -> Dataset:
        """Return `corpus(data)` encoded and split as it was for the training. Errors are those of `corpus`."""
        corpus = self.corpus(data)
        if isinstance(corpus, PreparedData):
            self._require_own_tokenizer(corpus)
        ids = corpus if isinstance(corpus, PreparedData) else encode_text(self.tokenizer, corpus.text)
        return Dataset(ids, self.config)

    @use_pytorch_defaults()
    def evaluate(
        self,
        data: DataPath = None,
        text_format: TextFormat | None = None,
        max_predictions: int | None = None,
        on_progress: Callable[[ExactLoss], None] = lambda exact: None,
    ) -> ExactLoss:
        """Measure the exact loss.

        Of the run's own training text, and of prepared data, only the validation split is measured; any other text is
        measured as a whole.

        Args:
            data: a text, in one or more files, or prepared data; by default the data that the run was trained on.
            text_format: how the text is read; by default as the run's own text.
            max_predictions: the largest number of predictions, in evenly spread windows; None for all.
            on_progress: called after each batch with the exact loss so far, of windows spread evenly over the text.

        Raises:
            FileError: a file cannot be read.
            DataError: the training text has changed, or the data were prepared with another tokenizer.
        """
        text_format = text_format or TextFormat.from_settings(self.config.training)
        corpus = self.corpus() if data is None else find_data(data, text_format=text_format)
        ids: TokenIds
        split = "validation split"
        if isinstance(corpus, PreparedData):
            self._require_own_tokenizer(corpus)
            ids = corpus.val
        else:
            ids = encode_text(self.tokenizer, corpus.text)
            if corpus.sha256 == self.info.data_sha256:
                ids = ids[find_boundary(len(ids), self.config) :]
            else:
                split = "whole text"
        keep_freed_memory()
        with self._limit_evaluation_threads() as threads:
            return ExactLoss.measure(
                self.model,
                ids,
                self.tokenizer,
                split,
                corpus.source,
                max_predictions,
                is_altered=isinstance(corpus, PreparedData) and corpus.is_altered,
                threads=threads,
                on_progress=on_progress,
            )

    def _require_own_tokenizer(self, data: PreparedData) -> None:
        if data.index.tokenizer_sha256 != compute_fingerprint(self.tokenizer):
            raise DataError(f"{data.source} has another tokenizer than this run: name one prepared with the run's")

    def _limit_generation_threads(self, batch_size: int, has_loops: bool = False) -> AbstractContextManager[int]:
        least = 2 * ELEMENTS_PER_THREAD if has_loops else 0  # the loops use two threads even for a small model
        return limit_threads(max(least, batch_size * self.config.model.block_size * self.config.model.n_embd))

    def _limit_evaluation_threads(self) -> AbstractContextManager[int]:
        return limit_threads(TOKENS_PER_BATCH * self.config.model.n_embd)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the prompt's ids; for an empty prompt those of the start.

        Raises:
            UnknownCharacterError: a character that is not in the vocabulary.
        """
        return self.tokenizer.encode(prompt) if prompt else find_start_ids(self.tokenizer, self.info)
