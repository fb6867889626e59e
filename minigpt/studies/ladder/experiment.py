"""The ladder's experiment: train every rung with one budget, and measure it.

`run_ladder` trains the rungs of rungs.py one after another, each with the same seed, batches, optimizer and number of
steps, and measures the exact validation loss of each. For comparison it fits n-gram models of growing order, and
blends a transformer with an n-gram model. It saves each measurement at once, so an interrupted ladder continues.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config, DataPath, SamplingConfig
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.data.text_format import TextFormat
from minigpt.errors import ConfigError, DivergedError, FileError
from minigpt.generation.engine import generate
from minigpt.model import count_parameters
from minigpt.model.gpt import GPT
from minigpt.model.language_model import get_device
from minigpt.model.lecture import GPTLanguageModel
from minigpt.model.loss import compute_exact_loss
from minigpt.model.ngram import NGramModel
from minigpt.studies.ladder.directory import Ladder, LadderDirectory, Measurement, VerbatimShares
from minigpt.studies.ladder.ngram_comparison import ORDERS, Blend, Comparison, compare_models, fit_best_ngram, hold_out
from minigpt.studies.ladder.report import draw_ladder, format_markdown
from minigpt.studies.ladder.rungs import FULL, RUNGS, Rung
from minigpt.studies.look.memorization import LENGTHS, measure_verbatim_shares
from minigpt.system.device import explain_memory_errors, limit_threads, pick_device
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import ProgressBar
from minigpt.training.display import Display
from minigpt.training.loop import train_model
from minigpt.training.precision import require_precision, resolve_precision
from minigpt.training.setup import MEMORY_WAY_OUT, build_corpus_tokenizer

SAMPLE_TOKENS = 300  # tokens of each rung's sample
COMPARED_TOKENS = 2000  # tokens of each text whose verbatim share is measured
SHARED_SETTINGS = (  # the ladder's budget, which a rung with a preset keeps
    *("max_iters", "train_fraction", "order", "device", "precision"),
    *("schedule", "warmup_iters", "weight_decay", "beta2", "grad_clip"),
)


@use_pytorch_defaults()
def run_ladder(
    config: Config,
    data: DataPath = None,
    out: str | Path | None = None,
    seeds: int = 1,
    full: bool = False,
    on_change: Callable[[Ladder], None] = lambda ladder: None,
    say: Callable[[str], None] = lambda message: None,
    sample_tokens: int = SAMPLE_TOKENS,
    compared_tokens: int = COMPARED_TOKENS,
) -> Ladder:
    """Measure the ladder on a text. What an earlier call measured in the same folder is not measured again.

    Args:
        config: the settings of every learned rung; its seed is the first seed.
        data: the text, as for `minigpt.train`.
        out: the ladder's folder. Default: runs/ladder.
        seeds: with how many seeds each learned rung is trained.
        full: add the rung lecture-large, for a GPU.
        on_change: called with the ladder at the start and after each new measurement.
        say: called with lines of progress.
        sample_tokens: the length of each rung's sample.
        compared_tokens: the length of the texts whose verbatim shares are compared.

    Raises:
        ConfigError: `seeds` is below 1.
        DataError: the text cannot be used, or is too short.
        DivergedError: a rung's loss is not a finite number. Earlier measurements are kept.
        FileError: a file cannot be read or written.
        OutOfMemoryError: a rung does not fit in memory. Earlier measurements are kept.
        RunError: the folder has something else.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be a whole number at least 1, not {seeds}")
    corpus = find_corpus(data, say, text_format=TextFormat.from_settings(config.training))
    tokenizer = build_corpus_tokenizer(corpus)
    say(f"text   {corpus.source}: {len(corpus.text):,} characters, {tokenizer.vocab_size} different")
    config = config.override(vocab_size=tokenizer.vocab_size)
    ids = torch.tensor(tokenizer.encode(corpus.text))
    experiment = LadderExperiment(config, ids, tokenizer, sample_tokens, compared_tokens)
    if full:  # refuse a text that is too short now, not after all other rungs
        Dataset(ids, experiment.make_config(FULL, config.training.seed))
    folder = LadderDirectory(Path("runs/ladder" if out is None else out))
    with folder.lock():
        ladder = folder.open(config, corpus)
        say(f"ladder {folder.path}" + (", which has a part of it already" if ladder.rungs else ""))
        on_change(ladder)
        try:
            with explain_memory_errors(MEMORY_WAY_OUT):
                _measure(experiment, ladder, folder, seeds, full, on_change)
        except BaseException:
            with suppress(FileError):  # the first error is the one to report
                _write_report(folder, ladder)
            raise
        _write_report(folder, ladder)
    return ladder


def _measure(
    experiment: "LadderExperiment",
    ladder: Ladder,
    folder: LadderDirectory,
    seeds: int,
    full: bool,
    on_change: Callable[[Ladder], None],
) -> None:
    """Measure what the ladder lacks, and save it after each measurement."""
    started = time.perf_counter()
    for _ in experiment.measure_missing(ladder, seeds, full):
        ladder.seconds += time.perf_counter() - started
        started = time.perf_counter()
        folder.save(ladder)
        on_change(ladder)


def _write_report(folder: LadderDirectory, ladder: Ladder) -> None:
    """Write the tables and the picture, if anything was measured."""
    if ladder.rungs:
        folder.write_report(format_markdown(ladder), draw_ladder(ladder))


class LadderExperiment:
    """What all rungs share: one text, one configuration, one device."""

    def __init__(
        self,
        config: Config,
        ids: Tensor,
        tokenizer: CharTokenizer,
        sample_tokens: int = SAMPLE_TOKENS,
        compared_tokens: int = COMPARED_TOKENS,
    ) -> None:
        """Prepare the experiment on a text.

        Args:
            config: the settings of every learned rung.
            ids: the text's token ids (N,).
            tokenizer: of the text.
            sample_tokens: the length of each rung's sample.
            compared_tokens: the length of the texts whose verbatim shares are compared.

        Raises:
            DataError: the text is too short.
            DeviceError: the device does not exist, or lacks the precision.
        """
        config = resolve_precision(config).override(checkpoint_activations=False)  # the first rungs have no blocks
        self.config, self.ids, self.tokenizer = config, ids, tokenizer
        self.sample_tokens, self.compared_tokens = sample_tokens, compared_tokens
        self.device = pick_device(config.training.device)
        require_precision(config.training.precision, self.device)
        dataset = Dataset(ids, config)
        self.val = dataset.val
        self.known, self.held_out = hold_out(dataset.train, config.model.block_size)

    def measure_missing(self, ladder: Ladder, seeds: int, full: bool) -> Iterator[None]:
        """Measure what the ladder lacks. Yield after each measurement that is added to it."""
        all_seeds = range(self.config.training.seed, self.config.training.seed + seeds)
        done = {(result.number, result.seed) for result in ladder.rungs}
        for number, rung in enumerate([*RUNGS, *([FULL] if full else [])]):
            for seed in all_seeds[:1] if rung.fit else all_seeds:
                if (number, seed) not in done:
                    ladder.rungs.append(self.measure_rung(number, rung, seed))
                    yield
        for order in ORDERS:
            if order not in {result.number for result in ladder.ngrams}:
                ladder.ngrams.append(self.measure_ngram(order))
                yield
        for seed in all_seeds:
            if seed not in {blend.seed for blend in ladder.blends}:
                blend, comparisons, copied = self.measure_blend(seed)
                ladder.blends.append(blend)
                ladder.comparisons += comparisons
                ladder.copied += copied
                yield

    def measure_rung(self, number: int, rung: Rung, seed: int) -> Measurement:
        """Count or train a rung, and measure it."""
        config = self.make_config(rung, seed)
        dataset = Dataset(self.ids, config)
        model: Any
        if rung.fit:
            started = time.perf_counter()
            model = rung.fit(dataset.train, config.model)
            seconds, characters, numbers = time.perf_counter() - started, len(dataset.train), model.numbers
        else:
            model, seconds = self._train(rung, config, dataset, f"{number:>2}  {rung.name}, seed {seed}")
            characters = config.training.max_iters * config.tokens_per_step
            numbers = count_parameters(model)
        return Measurement(
            number=number,
            name=rung.name,
            idea=rung.idea,
            learned=rung.network is not None,
            seed=seed,
            loss=compute_exact_loss(model, dataset.val),
            parameters=numbers,
            seconds=seconds,
            characters=characters,
            sample=self._generate(model, self.sample_tokens, seed),
        )

    def make_config(self, rung: Rung, seed: int) -> Config:
        """Return the configuration of a rung: the ladder's, or that of the rung's preset with the ladder's budget."""
        if rung.preset is None:
            return self.config.override(seed=seed, **rung.settings)
        shared = {name: getattr(self.config.training, name) for name in SHARED_SETTINGS}
        preset = Config.from_preset(rung.preset)
        lowest = min(self.config.training.min_learning_rate, preset.training.learning_rate)
        vocab_size = self.config.model.vocab_size
        return preset.override(vocab_size=vocab_size, seed=seed, **shared, min_learning_rate=lowest)

    def measure_ngram(self, order: int) -> Measurement:
        """Fit an n-gram model, and measure it."""
        dataset = Dataset(self.ids, self.config)
        started = time.perf_counter()
        model = NGramModel.fit(dataset.train, self.config.model.vocab_size, order)
        seconds = time.perf_counter() - started
        return Measurement(
            number=order,
            name=f"n-gram, order {order}",
            idea=f"what followed the last {order - 1} characters",
            learned=False,
            seed=self.config.training.seed,
            loss=model.token_losses(dataset.val).mean().item(),
            parameters=model.n_grams,
            seconds=seconds,
            characters=len(dataset.train),
            sample=self._generate(model, self.sample_tokens, self.config.training.seed),
        )

    def measure_blend(self, seed: int) -> tuple[Blend, list[Comparison], list[VerbatimShares]]:
        """Train the last rung and an n-gram model without the held-out text, and compare both and their blend."""
        config = self.config.override(seed=seed)
        dataset = Dataset(self.ids, config)
        dataset.train = self.known
        transformer, _ = self._train(RUNGS[-1], config, dataset, f"blend, seed {seed}")
        ngram = fit_best_ngram(self.known, self.held_out, config.model.vocab_size)
        characters = [self.tokenizer.decode([i]) for i in self.val.tolist()]
        blend, comparisons = compare_models(transformer, ngram, self.held_out, self.val, characters, seed)
        known = self.tokenizer.decode(self.known.tolist())
        texts = {
            "transformer": self._generate(transformer, self.compared_tokens, seed),
            "ngram": self._generate(ngram, self.compared_tokens, seed),
            "validation": "".join(characters[: self.compared_tokens]),
        }
        shares = {name: measure_verbatim_shares(text, known) for name, text in texts.items()}
        copied = [VerbatimShares(seed, length, **{name: shares[name][length] for name in shares}) for length in LENGTHS]
        return blend, comparisons, copied

    def _train(self, rung: Rung, config: Config, dataset: Dataset, title: str) -> tuple[Any, float]:
        """Train a rung's network, and return it with the seconds of training."""
        assert rung.network is not None
        limited = limit_threads(config.activations_per_batch, config.training.threads)
        with limited, Display(config.training, title) as display:
            torch.manual_seed(config.training.seed)
            model: Any = rung.network(config.model).to(self.device)
            try:
                progress = ProgressBar(display, config.tokens_per_step)
                state = train_model(model, dataset, config, [progress], estimate=None)
            except DivergedError as error:
                raise DivergedError(f"rung {title.strip()}: {error}") from None
        return model, state.clock.training_seconds

    def _generate(self, model: Any, tokens: int, seed: int) -> str:
        """Generate text after a line break, or after token 0 if the text has no line break."""
        if isinstance(model, GPTLanguageModel):  # GPT computes the same logits, with a KV cache
            model = GPT.from_lecture(model.state_dict()).eval()
        start = self.tokenizer.encode("\n") if "\n" in self.tokenizer.stoi else [0]
        config = SamplingConfig(max_new_tokens=tokens, seed=seed)
        with limit_threads(self.config.model.block_size * self.config.model.n_embd):
            prompt = torch.tensor([start], device=get_device(model))
            return self.tokenizer.decode(generate(model, prompt, config)[0].tolist())
