"""Looking inside a run: every view of it, as a picture or a page, with one plain sentence of what it shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor

from minigpt.data.dataset import Dataset, take_spaced_windows
from minigpt.errors import ConfigError, DataError, InputError, OutOfMemoryError, suggest_name
from minigpt.model.loss import MAX_EVALUATED_TOKENS, TOKENS_PER_BATCH, nats_to_bits
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunFolder
from minigpt.studies.look.attention import compute_attention_maps, draw_attention
from minigpt.studies.look.curves import draw_curves
from minigpt.studies.look.embedding import classify_character, draw_embedding, measure_neighbour_kinds
from minigpt.studies.look.heads import draw_heads, find_redundant_heads, measure_head_ablation, rounded
from minigpt.studies.look.memorization import describe_copying, make_memorization_page, measure_verbatim_shares
from minigpt.studies.look.position import compute_loss_by_position, draw_positions
from minigpt.studies.look.temperature import (
    TEMPERATURES,
    compute_entropies,
    compute_next_distributions,
    draw_temperature,
)
from minigpt.studies.look.timeline import draw_timeline
from minigpt.studies.look.token_loss import compute_text_losses, make_token_loss_page, tokens_of
from minigpt.system.device import explain_memory_errors, limit_threads
from minigpt.system.files import explain_os_errors, require_inside, write_atomic
from minigpt.system.plotting import write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT_LENGTH = 500  # characters of the validation text, where no other text is given
TOKENS_A_HEAD = 2**14  # predictions by which each head is judged
WRITTEN = 2000  # characters written to see how much of them is copied


@dataclass(frozen=True)
class ViewInput:
    """What is looked at: a run, a text, and the runs it is held against; and where its training text lies now."""

    run: Run
    given: str | None
    against: Sequence[Run]
    data: str | Path | None

    @cached_property
    def dataset(self) -> Dataset:
        """The run's own text, split as it was for the training. Raises DataError or FileError if it is gone."""
        return self.run.dataset(self.data)

    def decoded(self, ids: Any) -> str:
        """The text of some ids, without the tokens between documents."""
        special = set(self.run.tokenizer.special_tokens.values())
        return self.run.tokenizer.decode(i for i in ids.tolist() if i not in special)

    @cached_property
    def text(self) -> str:
        """The text to look at: the one given, or else the beginning of the validation text."""
        if self.given is not None:
            return self.given
        return self.decoded(self.dataset.val[:TEXT_LENGTH])

    @property
    def ids(self) -> Tensor:
        """The ids of that text's end, as much as the model sees at once: (T,)."""
        ids = self.run.tokenizer.encode(self.text)[-self.run.config.model.block_size :]
        return torch.tensor(ids, device=next(iter(self.run.model.parameters())).device)

    @property
    def characters(self) -> list[str]:
        """Every token as text, in the order of their ids."""
        return [self.run.tokenizer.decode([i]) for i in range(self.run.tokenizer.vocab_size)]


@dataclass(frozen=True)
class ViewResult:
    """One view: its name, what it shows in a sentence, the figures behind it, and its file.

    Attributes:
        picture: a figure, a page of HTML, or None for a view that this run doesn't offer; `says` is then why.
        path: where the picture was written.
    """

    name: str
    says: str
    figures: dict[str, Any] = field(default_factory=dict)
    picture: Union["Figure", str, None] = None
    path: Path | None = None


def attention(subject: ViewInput) -> ViewResult:
    """Where each head looks."""
    ids = subject.ids
    maps = compute_attention_maps(subject.run.model, ids)
    text = [subject.run.tokenizer.decode([i]) for i in ids.tolist()]
    entropy = torch.special.entr(maps).sum(dim=-1).mean(dim=-1)  # (L, H)
    L, H = divmod(int(entropy.argmin()), entropy.shape[1])
    says = f"where each head looks, over {len(ids)} tokens; the most pointed is block {L + 1}, head {H + 1}"
    return ViewResult(
        "attention", says, {"text": "".join(text), "entropy_nats": entropy.tolist()}, draw_attention(maps, text)
    )


def heads(subject: ViewInput) -> ViewResult:
    """What each head is worth."""
    block_size = subject.run.config.model.block_size
    windows = take_spaced_windows(subject.dataset.val, max(1, TOKENS_A_HEAD // block_size), block_size)
    loss, worth = measure_head_ablation(subject.run.model, *windows)
    spare = find_redundant_heads(worth)
    L, H = divmod(int(worth.argmax()), worth.shape[1])
    names = ", ".join(f"block {block} head {head}" for block, head in spare)
    says = f"without block {L + 1} head {H + 1} the loss rises by {rounded(float(worth.max())):.3f}; "
    says += f"nobody would miss {names}" if spare else "every head would be missed"
    figures = {"loss": loss, "worth": worth.tolist(), "not_missed": spare, "predictions": windows[0].numel()}
    return ViewResult("heads", says, figures, draw_heads(worth, loss))


def surprise(subject: ViewInput) -> ViewResult:
    """Where the model was surprised."""
    losses, tokens = compute_text_losses(subject.run, subject.text), tokens_of(subject.run, subject.text)
    worst = max(range(len(losses)), key=losses.__getitem__)
    before, token = "".join(tokens[max(0, worst - 9) : worst + 1]), tokens[worst + 1]
    says = f"{nats_to_bits(sum(losses) / len(losses)):.2f} bits a token; most surprising was {token!r} after "
    says += f"{before!r}: {nats_to_bits(losses[worst]):.1f} bits"
    page = make_token_loss_page(f"Where {subject.run.path.name} was surprised", tokens, losses)
    return ViewResult("surprise", says, {"text": subject.text, "tokens": tokens, "losses": losses}, page)


def embedding(subject: ViewInput) -> ViewResult:
    """Whether like lies with like."""
    table = subject.run.model.token_embedding_table.weight.cpu()
    share, chance = measure_neighbour_kinds(table, [classify_character(c) for c in subject.characters])
    says = f"{share:.0%} of the nearest neighbours of a character are of its kind, {chance:.0%} by chance"
    return ViewResult("embedding", says, {"share": share, "chance": chance}, draw_embedding(table, subject.characters))


def position(subject: ViewInput) -> ViewResult:
    """What context buys."""
    curve = compute_loss_by_position(subject.run.model, torch.as_tensor(subject.dataset.val[:MAX_EVALUATED_TOKENS]))
    says = f"with 1 character of context the loss is {curve[0]:.3f}"
    says += f", with {len(curve)} it is {curve[-1]:.3f}" if len(curve) > 1 else ", and the model never sees more"
    return ViewResult("position", says, {"losses": curve.tolist()}, draw_positions({subject.run.path.name: curve}))


def temperature(subject: ViewInput) -> ViewResult:
    """What temperature does."""
    distributions = compute_next_distributions(subject.run.model, subject.ids)
    values = compute_entropies(distributions)
    said = [f"{value:.2f} bits at {temperature:g}" for temperature, value in zip(TEMPERATURES, values, strict=True)]
    figures = {"temperatures": list(TEMPERATURES), "entropy_bits": values}
    picture = draw_temperature(distributions, subject.characters, subject.text)
    return ViewResult("temperature", f"the next character is open by {', '.join(said)}", figures, picture)


def curves(subject: ViewInput) -> ViewResult:
    """The learning curves of the runs."""
    runs = [subject.run, *subject.against]
    losses = {str(run.path): run.record.validation_loss for run in runs}
    best = min((loss, path) for path, loss in losses.items() if loss is not None) if any(losses.values()) else None
    says = f"lowest exact validation loss: {best[0]:.4f}, {best[1]}" if best else "no run has an exact loss yet"
    return ViewResult("curves", says, {"validation_losses": losses}, draw_curves(runs))


def copied(subject: ViewInput) -> ViewResult:
    """Copied or created."""
    run, dataset = subject.run, subject.dataset
    source, true = subject.decoded(dataset.train[:MAX_EVALUATED_TOKENS]), subject.decoded(dataset.val[:WRITTEN])
    written = "".join(run.stream(max_new_tokens=WRITTEN, seed=run.config.training.seed))
    found = {"written": measure_verbatim_shares(written, source), "validation": measure_verbatim_shares(true, source)}
    page = make_memorization_page(f"Is {run.path.name} only copying?", written, true, source)
    return ViewResult("copied", describe_copying(found["written"], found["validation"]), found, page)


def timeline(subject: ViewInput) -> ViewResult:
    """How it learned."""
    snapshots = RunFolder(subject.run.path).read_snapshots()
    title = f"{subject.run.path.name}: {subject.run.record.parameters:,} parameters learn to write"
    picture = draw_timeline(snapshots, title)
    return ViewResult("timeline", f"{len(snapshots)} texts from the same start, step by step", {}, picture)


VIEWS: dict[str, Callable[[ViewInput], ViewResult]] = {
    view.__name__: view
    for view in (surprise, attention, heads, position, embedding, temperature, copied, curves, timeline)
}


def look(
    run: Run,
    out: Path | None = None,
    text: str | None = None,
    only: Sequence[str] = (),
    against: Sequence[Run] = (),
    data: str | Path | None = None,
) -> Iterator[ViewResult]:
    """Look at a run: each view in turn, written to a file of its name.

    Arguments:
        run: the run.
        out: the folder for the files; without it `look` in the run's own.
        text: what to look at; without it the beginning of the validation text.
        only: the names of the views, from VIEWS; without any, all of them.
        against: runs whose learning curves are drawn over this one's.
        data: the file of the run's training text, if it lies elsewhere now.

    A view that this run doesn't offer, such as the heads of a bigram model, comes without a picture, and is
    refused if it is in `only`. Raises ConfigError, DataError, UnknownCharacterError and FileError.
    """
    for name in only:
        if name not in VIEWS:
            raise ConfigError(f"there is no view '{name}': choose from {', '.join(VIEWS)}{suggest_name(name, VIEWS)}")
    if text is not None:
        if not text:
            raise DataError("the text to look at is empty: give at least one character")
        run.tokenizer.encode(text)  # refused now, not after the first views
    if out is None:
        out = run.path / "look"
        require_inside(run.path, [out, *out.glob("*")])
    return views(ViewInput(run, text, against, data), out, only)


def views(subject: ViewInput, out: Path, only: Sequence[str]) -> Iterator[ViewResult]:
    """Make each view and write it."""
    with explain_os_errors("create the folder", out):
        out.mkdir(parents=True, exist_ok=True)
    for name in only or VIEWS:
        try:
            with (
                limit_threads(TOKENS_PER_BATCH * subject.run.config.model.n_embd),
                explain_memory_errors("use a smaller run"),
            ):
                seen = VIEWS[name](subject)
        except (InputError, OutOfMemoryError) as error:
            if only:
                raise
            yield ViewResult(name, str(error))
            continue
        yield written(seen, out)


def written(seen: ViewResult, out: Path) -> ViewResult:
    """The view with its picture in a file of the folder."""
    if isinstance(seen.picture, str):
        path = out / f"{seen.name}.html"
        write_atomic(path, seen.picture.encode("utf-8", "backslashreplace"))
    else:
        path = out / f"{seen.name}.png"
        assert seen.picture is not None
        write_png(path, seen.picture)
    return ViewResult(seen.name, seen.says, seen.figures, seen.picture, path)
