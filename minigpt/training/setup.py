"""What a training begins with: a text, its tokenizer, the batches, a model, and how many steps."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from minigpt.acceleration import accelerate
from minigpt.config import DEFAULT_VOCAB_SIZE, Config, ModelConfig, TrainingConfig
from minigpt.data.corpus import Corpus, find_data
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.distributed.processes import ALONE, Processes
from minigpt.errors import ConfigError, DataError
from minigpt.model import TrainedModel, build
from minigpt.system.device import explain_memory_errors, limit_threads, pick_device
from minigpt.tokenizers.base import Tokenizer, fingerprint
from minigpt.tokenizers.char import CharTokenizer
from minigpt.tokenizers.loading import train_tokenizer
from minigpt.training.display import Display
from minigpt.training.forecast import steps_within
from minigpt.training.gradients import require_precision, with_precision

WAY_OUT = "lower batch_size, block_size, n_embd or n_layer, or use a text of fewer different characters"


@dataclasses.dataclass(frozen=True)
class Start:
    """All that a training begins with."""

    corpus: Corpus | PreparedData
    tokenizer: Tokenizer
    config: Config
    dataset: Any  # a Dataset, or other Batches
    model: TrainedModel
    threads: int
    processes: Processes = ALONE


def within_budget(start: Start, display: Display) -> Start:
    """The same, with as many steps as its minutes allow, if it has a budget of time.

    From then on only the steps count, and so the run can be repeated and gone on with like any other.
    """
    minutes = start.config.training.max_minutes
    if minutes is None:
        return start
    steps = steps_within(minutes, start.model, start.dataset, start.config)
    display.say(f"budget {minutes:g} minutes of training, which here are {steps:,} steps")
    display.expect(steps)
    return dataclasses.replace(start, config=start.config.override(max_iters=steps))


@contextmanager
def prepared(
    config: Config,
    data: str | Path | Corpus | PreparedData | None,
    display: Display,
    given: Tokenizer | None = None,
    model: Callable[[ModelConfig], TrainedModel] = build,
    processes: Processes = ALONE,
) -> Iterator[Start]:
    """Text, tokenizer and a model; within the block, PyTorch has the threads that suit them."""
    shares = {"rank": processes.rank, "world_size": processes.size}
    if model is build and config.model.quantization != "none":
        raise ConfigError(f"quantization {config.model.quantization} is what minigpt quantize makes: train without it")
    corpus = data if isinstance(data, Corpus | PreparedData) else find_data(data, display.say)
    if isinstance(corpus, PreparedData):
        config = fitted(config, corpus, given)
        tokenizer, dataset = corpus.tokenizer, Dataset(corpus, config, **shares)
    else:
        tokenizer = given or tokenizer_for(corpus, config)
        config = config.override(tokenizer=tokenizer.kind, vocab_size=tokenizer.vocab_size)
        dataset = Dataset(tokenizer.encode(corpus.text), config, **shares)
    about = f"{tokenizer.vocab_size} different"
    if config.training.tokenizer != "char":
        about = f"{dataset.tokens:,} tokens of {tokenizer.vocab_size:,} different ({config.training.tokenizer})"
    display.say(f"text   {corpus.source}: {corpus.characters:,} characters, {about}")
    device, config = pick_device(config.training.device), with_precision(config)
    require_precision(config.training.precision, device)
    with explain_memory_errors(WAY_OUT), limit_threads(config.activations_per_batch) as threads:
        torch.manual_seed(config.training.seed)
        built = model(config.model).to(device)
        accelerate(built, config)
        yield Start(corpus, tokenizer, config, dataset, built, threads, processes)


def fitted(config: Config, data: PreparedData, given: Tokenizer | None) -> Config:
    """The configuration with prepared data's tokenizer and split; DataError if it asks for others."""
    asked, was = config.training, data.index.settings
    kind, size = data.tokenizer.kind, data.index.vocab_size
    other = None
    if given and fingerprint(given) != data.index.tokenizer_sha256:
        other = "tokenizer that was named"
    elif asked.tokenizer not in (TrainingConfig.tokenizer, kind, was.get("tokenizer")):
        other = f"tokenizer {asked.tokenizer}"
    elif asked.tokenizer != TrainingConfig.tokenizer and config.model.vocab_size not in (DEFAULT_VOCAB_SIZE, size):
        other = f"vocab_size of {config.model.vocab_size:,}"
    elif asked.train_fraction not in (TrainingConfig.train_fraction, was.get("train_fraction")):
        other = f"train_fraction of {asked.train_fraction:g}"
    if other:
        made = f"a {kind} tokenizer of {size:,} and a train_fraction of {was.get('train_fraction')}"
        raise DataError(f"{data.source} cannot have the {other}: they were prepared with {made}; leave it out")
    return config.override(tokenizer=kind, vocab_size=size, train_fraction=was.get("train_fraction"))


def tokenizer_for(corpus: Corpus, config: Config) -> Tokenizer:
    """The tokenizer that the config asks for, learned from the text; DataError if there is nothing to learn.

    Characters are those of the whole text; all else is learned from the part that will be trained on.
    """
    kind, text = config.training.tokenizer, corpus.text
    if kind == "char":
        return vocabulary_of(corpus)
    learned_from = text[: math.floor(config.training.train_fraction * len(text))]
    return train_tokenizer(kind, learned_from, config.model.vocab_size)


def vocabulary_of(corpus: Corpus) -> CharTokenizer:
    """The characters of a text. Raises DataError if it has fewer than two different ones."""
    tokenizer = CharTokenizer.from_text(corpus.text)
    if tokenizer.vocab_size < 2:
        raise DataError(f"{corpus.source} holds one distinct character only: there is nothing to learn from it")
    return tokenizer
