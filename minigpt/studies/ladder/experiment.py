"""Climbing the ladder: what each idea of the lecture is worth, measured under one budget.

`climb` trains the rungs of ladder.py one after another, each from the same seed on the same batches with
the same optimizer and number of steps, and measures each one's exact validation loss; beside the ladder,
n-gram models of growing order, and a transformer and an n-gram model blended. Every measurement is kept
as soon as it is made, so a ladder that was interrupted goes on where it stopped.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.config import Config, SamplingConfig
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError, DivergedError, FileError
from minigpt.generation.engine import generate
from minigpt.model import count_parameters
from minigpt.model.loss import compute_exact_loss
from minigpt.model.ngram import NGramModel
from minigpt.studies.ladder.directory import Ladder, LadderFolder, Result, VerbatimShares
from minigpt.studies.ladder.ngram_comparison import ORDERS, Blend, Comparison, compare_models, fit_best_ngram, hold_out
from minigpt.studies.ladder.report import draw_ladder, format_markdown
from minigpt.studies.ladder.rungs import FULL, RUNGS, Rung
from minigpt.studies.look.memorization import LENGTHS, measure_verbatim_shares
from minigpt.system.device import explain_memory_errors, limit_threads, pick_device
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import ProgressBar
from minigpt.training.display import Display
from minigpt.training.loop import fit
from minigpt.training.precision import require_precision, resolve_precision
from minigpt.training.setup import WAY_OUT, build_char_tokenizer

SAMPLE_TOKENS = 300
COPIED_TOKENS = 2000  # written to see how much of it is copied


def run_ladder(
    config: Config,
    data: str | Path | None = None,
    out: str | Path | None = None,
    seeds: int = 1,
    full: bool = False,
    show: Callable[[Ladder], None] = lambda ladder: None,
    say: Callable[[str], None] = lambda message: None,
) -> Ladder:
    """Climb the ladder on a text; what was measured.

    Arguments:
        config: the settings of every learned rung, the first seed among them.
        data: the text, as for `minigpt.train`.
        out: the ladder's folder, without it runs/ladder. If it holds a part of the same ladder, the rest is climbed.
        seeds: how many seeds to climb it with.
        full: climb one rung more, lecture-large; for a GPU.
        show: called with the ladder whenever there is something new in it.
        say: told what is going on.

    Raises ConfigError, DataError, FileError or RunError (the folder holds something else) before anything is
    trained; DivergedError and OutOfMemoryError may come later. What was measured until then is kept.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be a whole number at least 1, not {seeds}")
    corpus = find_corpus(data, say)
    tokenizer = build_char_tokenizer(corpus)
    say(f"text   {corpus.source}: {len(corpus.text):,} characters, {tokenizer.vocab_size} different")
    config = config.override(vocab_size=tokenizer.vocab_size)
    experiment = LadderExperiment(config, torch.tensor(tokenizer.encode(corpus.text)), tokenizer)
    if full:
        Dataset(
            experiment.ids, experiment.make_config(FULL, config.training.seed)
        )  # refused now, not after all the others
    folder = LadderFolder(Path("runs/ladder" if out is None else out))
    ladder = folder.open(config, corpus)
    say(f"ladder {folder.path}" + (", which holds a part of it already" if ladder.rungs else ""))

    show(ladder)
    began = time.perf_counter()
    try:
        with explain_memory_errors(WAY_OUT):
            for _ in experiment.measurements(ladder, seeds, full):
                ladder.seconds += time.perf_counter() - began
                began = time.perf_counter()
                folder.save(ladder)
                show(ladder)
    except BaseException:
        with suppress(FileError):  # what went wrong first is what has to be told
            write_report(folder, ladder)
        raise
    write_report(folder, ladder)
    return ladder


def write_report(folder: LadderFolder, ladder: Ladder) -> None:
    """Write down and draw what has been measured, if anything has."""
    if ladder.rungs:
        folder.write_report(format_markdown(ladder), draw_ladder(ladder))


class LadderExperiment:
    """What all rungs stand on: one text, one configuration, one device."""

    def __init__(self, config: Config, ids: Tensor, tokenizer: CharTokenizer) -> None:
        """Raises DataError for a text too short for the configuration, DeviceError."""
        config = resolve_precision(config).override(checkpoint_activations=False)  # the first rungs have no blocks
        self.config, self.ids, self.tokenizer = config, ids, tokenizer
        self.device = pick_device(config.training.device)
        require_precision(config.training.precision, self.device)
        dataset = Dataset(ids, config)
        self.val = dataset.val
        self.known, self.held_out = hold_out(dataset.train, config.model.block_size)

    def measurements(self, ladder: Ladder, seeds: int, full: bool) -> Iterator[None]:
        """Measure what the ladder lacks, and stop for a moment after each piece that is added to it."""
        every_seed = range(self.config.training.seed, self.config.training.seed + seeds)
        done = {(result.number, result.seed) for result in ladder.rungs}
        for number, rung in enumerate([*RUNGS, *([FULL] if full else [])]):
            for seed in every_seed[:1] if rung.fit else every_seed:
                if (number, seed) not in done:
                    ladder.rungs.append(self.measure_rung(number, rung, seed))
                    yield
        for order in ORDERS:
            if order not in {result.number for result in ladder.ngrams}:
                ladder.ngrams.append(self.counted(order))
                yield
        for seed in every_seed:
            if seed not in {blend.seed for blend in ladder.blends}:
                blend, comparisons, copied = self.blended(seed)
                ladder.blends.append(blend)
                ladder.comparisons += comparisons
                ladder.copied += copied
                yield

    def measure_rung(self, number: int, rung: Rung, seed: int) -> Result:
        """Fill or train a rung, and measure it."""
        config = self.make_config(rung, seed)
        dataset = Dataset(self.ids, config)
        model: Any
        if rung.fit:
            began = time.perf_counter()
            model = rung.fit(dataset.train, config.model)
            seconds, characters, numbers = time.perf_counter() - began, len(dataset.train), model.numbers
        else:
            model, seconds = self.trained(rung, config, dataset, f"{number:>2}  {rung.name}, seed {seed}")
            characters = config.training.max_iters * config.tokens_per_step
            numbers = count_parameters(model)
        return Result(
            number=number,
            name=rung.name,
            idea=rung.idea,
            learned=rung.network is not None,
            seed=seed,
            loss=compute_exact_loss(model, dataset.val),
            parameters=numbers,
            seconds=seconds,
            characters=characters,
            sample=self.written(model, SAMPLE_TOKENS, seed),
        )

    def make_config(self, rung: Rung, seed: int) -> Config:
        """The ladder's configuration as this rung needs it."""
        if rung.preset is None:
            return self.config.override(seed=seed, **rung.settings)
        same = {"vocab_size": self.config.model.vocab_size, "seed": seed}
        kept = (
            *("max_iters", "train_fraction", "order", "device", "precision"),
            *("schedule", "warmup_iters", "weight_decay", "beta2", "grad_clip"),
        )
        same |= {name: getattr(self.config.training, name) for name in kept}
        preset = Config.from_preset(rung.preset)
        lowest = min(self.config.training.min_learning_rate, preset.training.learning_rate)
        return preset.override(**same, min_learning_rate=lowest)

    def trained(self, rung: Rung, config: Config, dataset: Dataset, title: str) -> tuple[Any, float]:
        """Return the rung's network, trained, and the seconds of its training."""
        assert rung.network is not None
        with limit_threads(config.activations_per_batch), Display(config.training, title) as display:
            torch.manual_seed(config.training.seed)
            model: Any = rung.network(config.model).to(self.device)
            try:
                progress = ProgressBar(display, config.tokens_per_step)
                state = fit(model, dataset, config, [progress], estimate=None)
            except DivergedError as error:
                raise DivergedError(f"rung {title.strip()}: {error}") from None
        return model, state.clock.training_seconds

    def counted(self, order: int) -> Result:
        """Fit an n-gram model, and measure it."""
        dataset = Dataset(self.ids, self.config)
        began = time.perf_counter()
        model = NGramModel.fit(dataset.train, self.config.model.vocab_size, order)
        seconds = time.perf_counter() - began
        return Result(
            number=order,
            name=f"n-gram, order {order}",
            idea=f"what followed the last {order - 1} characters",
            learned=False,
            seed=self.config.training.seed,
            loss=model.token_losses(dataset.val).mean().item(),
            parameters=model.n_grams,
            seconds=seconds,
            characters=len(dataset.train),
            sample=self.written(model, SAMPLE_TOKENS, self.config.training.seed),
        )

    def blended(self, seed: int) -> tuple[Blend, list[Comparison], list[VerbatimShares]]:
        """Train the last rung and an n-gram model without the text kept out, and compare them and their mixture."""
        config = self.config.override(seed=seed)
        dataset = Dataset(self.ids, config)
        dataset.train = self.known
        transformer, _ = self.trained(RUNGS[-1], config, dataset, f"blend, seed {seed}")
        ngram = fit_best_ngram(self.known, self.held_out, config.model.vocab_size)
        characters = [self.tokenizer.decode([i]) for i in self.val.tolist()]
        blend, comparisons = compare_models(transformer, ngram, self.held_out, self.val, characters, seed)
        known = self.tokenizer.decode(self.known.tolist())
        texts = {
            "transformer": self.written(transformer, COPIED_TOKENS, seed),
            "ngram": self.written(ngram, COPIED_TOKENS, seed),
            "validation": "".join(characters[:COPIED_TOKENS]),
        }
        found = {name: measure_verbatim_shares(text, known) for name, text in texts.items()}
        copied = [VerbatimShares(seed, length, **{name: found[name][length] for name in found}) for length in LENGTHS]
        return blend, comparisons, copied

    def written(self, model: Any, tokens: int, seed: int) -> str:
        """What the model writes after a line break, or after token 0 where the text has none."""
        start = self.tokenizer.encode("\n") if "\n" in self.tokenizer.stoi else [0]
        config = SamplingConfig(max_new_tokens=tokens, seed=seed)
        with limit_threads(self.config.model.block_size * self.config.model.n_embd):
            device = next(itertools.chain(model.parameters(), model.buffers())).device
            return self.tokenizer.decode(generate(model, torch.tensor([start], device=device), config)[0].tolist())
