"""Prepare a training run: text, tokenizer, dataset, model, and the number of steps."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from minigpt.acceleration import accelerate, choose_training_loops
from minigpt.config import DEFAULT_VOCAB_SIZE, Config, DataPath, ModelConfig, TrainingConfig
from minigpt.data.array_encoding import encode_text
from minigpt.data.corpus import Corpus, find_data
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.data.text_format import TextFormat
from minigpt.distributed.process_group import SINGLE, Processes
from minigpt.errors import ConfigError, DataError
from minigpt.model import TrainedModel, build
from minigpt.system.device import explain_memory_errors, limit_threads, pick_device
from minigpt.tokenizers.base import END_OF_TEXT, Tokenizer, compute_fingerprint
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.loading import train_tokenizer
from minigpt.training.display import Display
from minigpt.training.planning.forecast import count_steps_within
from minigpt.training.precision import require_precision, resolve_precision
from minigpt.training.tensorboard_log import require_logger
from minigpt.training.training_data import TrainingData

MEMORY_WAY_OUT = "lower batch_size, block_size, n_embd or n_layer, or use a text of fewer different characters"


@dataclasses.dataclass(frozen=True)
class TrainingSetup:
    """What a training run needs before its first step.

    Attributes:
        corpus: the text, or prepared data.
        tokenizer: the text's tokenizer.
        config: the settings, completed from the text: vocab_size, precision.
        dataset: the batches.
        model: the model, on its device.
        threads: number of threads that PyTorch uses.
        processes: the processes that train together.

    Raises:
        MissingExtraError: the config logs to a program whose package is not installed.
    """

    corpus: Corpus | PreparedData
    tokenizer: Tokenizer
    config: Config
    dataset: TrainingData
    model: TrainedModel
    threads: int
    processes: Processes = SINGLE

    def __post_init__(self) -> None:
        require_logger(self.config.training)


def resolve_max_minutes(setup: TrainingSetup, display: Display) -> TrainingSetup:
    """Return the setup with max_iters in place of max_minutes, by timing some steps.

    From then on only the steps count, so the run can be repeated and resumed like any other.
    """
    minutes = setup.config.training.max_minutes
    if minutes is None:
        return setup
    assert isinstance(setup.dataset, Dataset)
    steps = count_steps_within(minutes, setup.model, setup.dataset, setup.config)
    display.say(f"budget {minutes:g} minutes of training: {steps:,} steps on this machine")
    display.set_max_iters(steps)
    return dataclasses.replace(setup, config=setup.config.override(max_iters=steps))


@contextmanager
def prepare_training(
    config: Config,
    data: DataPath | Corpus | PreparedData,
    display: Display,
    tokenizer: Tokenizer | None = None,
    build_model: Callable[[ModelConfig], TrainedModel] = build,
    processes: Processes = SINGLE,
) -> Iterator[TrainingSetup]:
    """Read the text, and build the tokenizer, the dataset and the model. PyTorch's threads suit them during the block.

    Args:
        config: the settings.
        data: the text, or where it is; None for the default text.
        display: says what was read.
        tokenizer: the tokenizer to use; None to train one on the text.
        build_model: builds the model of a configuration.
        processes: the processes that train together; each gets its share of a batch.

    Raises:
        ConfigError: a setting does not fit the others.
        DataError: the text does not fit the settings.
        DeviceError: the device does not exist, or lacks the precision.
        OutOfMemoryError: the model does not fit in memory.
    """
    if build_model is build and config.model.quantization != "none":
        raise ConfigError(
            f"a model in {config.model.quantization} cannot be trained: train in full precision, then quantize"
        )
    corpus = data
    if not isinstance(corpus, Corpus | PreparedData):
        corpus = find_data(corpus, display.say, TextFormat.from_settings(config.training))
    tokenizer, config, dataset = _encode_corpus(corpus, config, display, tokenizer, processes)
    device, config = pick_device(config.training.device), resolve_precision(config)
    require_precision(config.training.precision, device)
    limited = limit_threads(config.activations_per_batch, config.training.threads)
    with explain_memory_errors(MEMORY_WAY_OUT), limited as threads:
        config = config.override(compiled_loops=choose_training_loops(config, device.type))
        if processes.size == 1:
            config = config.override(threads=threads)  # a resumed run keeps both, and so its bits
        torch.manual_seed(config.training.seed)
        model = build_model(config.model).to(device)
        accelerate(model, config)
        yield TrainingSetup(corpus, tokenizer, config, dataset, model, threads, processes)


def _encode_corpus(
    corpus: Corpus | PreparedData,
    config: Config,
    display: Display,
    tokenizer: Tokenizer | None,
    processes: Processes,
) -> tuple[Tokenizer, Config, Dataset]:
    """Return the tokenizer, the config with its kind and size, and the encoded text. Say how large the text is."""
    shares = {"rank": processes.rank, "world_size": processes.size}
    if isinstance(corpus, PreparedData):
        config = _adopt_prepared_data(config, corpus, tokenizer)
        tokenizer, dataset = corpus.tokenizer, Dataset(corpus, config, **shares)
    else:
        tokenizer = tokenizer or _train_tokenizer(corpus, config)
        config = config.override(tokenizer=tokenizer.kind, vocab_size=tokenizer.vocab_size)
        dataset = Dataset(encode_text(tokenizer, corpus.text), config, **shares)
        if marks := corpus.text.count(END_OF_TEXT):
            way_out = f"to split the text there, use minigpt data prepare --separator '{END_OF_TEXT}'"
            display.say(f"{corpus.source} has {END_OF_TEXT} {marks:,} times as ordinary text: {way_out}")
    size = f"{tokenizer.vocab_size} different"
    if config.training.tokenizer != "char":
        size = f"{dataset.num_tokens:,} tokens of {tokenizer.vocab_size:,} different ({config.training.tokenizer})"
    display.say(f"text   {corpus.source}: {corpus.characters:,} characters, {size}")
    return tokenizer, config, dataset


def _adopt_prepared_data(config: Config, data: PreparedData, tokenizer: Tokenizer | None) -> Config:
    """Return the config with the tokenizer and split of prepared data. Raise DataError if it asks for others."""
    asked, prepared = config.training, data.index.settings
    kind, size = data.tokenizer.kind, data.index.vocab_size
    other = None
    if tokenizer and compute_fingerprint(tokenizer) != data.index.tokenizer_sha256:
        other = "tokenizer that was named"
    elif asked.tokenizer not in (TrainingConfig.tokenizer, kind, prepared.get("tokenizer")):
        other = f"tokenizer {asked.tokenizer}"
    elif asked.tokenizer != TrainingConfig.tokenizer and config.model.vocab_size not in (DEFAULT_VOCAB_SIZE, size):
        other = f"vocab_size of {config.model.vocab_size:,}"
    elif asked.train_fraction not in (TrainingConfig.train_fraction, prepared.get("train_fraction")):
        other = f"train_fraction of {asked.train_fraction:g}"
    for name in ("encoding", "newlines", "errors"):
        value = getattr(asked, name)
        if tokenizer is None and value not in (getattr(TrainingConfig, name), prepared.get(name)):
            other = f"{name} {value}"
    if other:
        made = f"a {kind} tokenizer of {size:,} and a train_fraction of {prepared.get('train_fraction')}"
        raise DataError(
            f"{data.source} cannot have the {other}, because it was prepared with {made}: leave that setting out"
        )
    return config.override(tokenizer=kind, vocab_size=size, train_fraction=prepared.get("train_fraction"))


def _train_tokenizer(corpus: Corpus, config: Config) -> Tokenizer:
    """Return a new tokenizer of the configured kind. Raise DataError if the text is too uniform.

    A character tokenizer has all characters of the text; the others learn from the training split alone.
    """
    kind, text = config.training.tokenizer, corpus.text
    if kind == "char":
        return build_corpus_tokenizer(corpus)
    learned_from = text[: math.floor(config.training.train_fraction * len(text))]
    return train_tokenizer(kind, learned_from, config.model.vocab_size)


def build_corpus_tokenizer(corpus: Corpus) -> CharTokenizer:
    """Return the tokenizer of a text's characters. Raise DataError if the text has fewer than two different ones."""
    tokenizer = CharTokenizer.from_text(corpus.text)
    if tokenizer.vocab_size < 2:
        raise DataError(f"{corpus.source} holds one distinct character only: there is nothing to learn from it")
    return tokenizer
