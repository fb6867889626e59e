"""The views of a run: each is a picture or a page, with one sentence that says what it shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import torch

from minigpt.config import DataPath
from minigpt.data.dataset import take_spaced_windows
from minigpt.errors import ConfigError, DataError, InputError, OutOfMemoryError, suggest_name
from minigpt.model.loss import MAX_EVALUATED_TOKENS, TOKENS_PER_BATCH
from minigpt.model.loss_units import nats_to_bits
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.studies.look.attention import compute_attention_maps, draw_attention
from minigpt.studies.look.curves import describe_ranking, draw_curves
from minigpt.studies.look.embedding import classify_character, draw_embedding, measure_neighbor_kinds
from minigpt.studies.look.heads import draw_heads, find_unused_heads, measure_head_ablation, round_rise
from minigpt.studies.look.memorization import (
    compute_verbatim_shares,
    describe_copying,
    find_verbatim,
    make_memorization_page,
)
from minigpt.studies.look.position import compute_loss_by_position, draw_positions
from minigpt.studies.look.temperature import TEMPERATURES, compute_next_distributions, draw_temperature
from minigpt.studies.look.timeline import draw_timeline
from minigpt.studies.look.token_loss import compute_text_losses, make_token_loss_page, split_tokens
from minigpt.studies.look.view_input import ViewInput
from minigpt.studies.next_token import compute_entropies
from minigpt.system.device import explain_memory_errors, limit_threads
from minigpt.system.files import create_folder, require_inside, write_atomic
from minigpt.system.plotting import write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABLATION_PREDICTIONS = 2**14  # predictions that measure each head
GENERATED_LENGTH = 2000  # tokens written for the view `copied`


@dataclass(frozen=True)
class ViewResult:
    """One view of a run.

    Attributes:
        name: the view's name.
        summary: what the view shows, in one sentence; or why the run does not have this view.
        figures: the numbers behind it.
        picture: a figure, a page of HTML, or None if the run does not have this view.
        path: the file of the picture.
    """

    name: str
    summary: str
    figures: dict[str, Any] = field(default_factory=dict)
    picture: Union["Figure", str, None] = None
    path: Path | None = None


def _view_attention(inputs: ViewInput) -> ViewResult:
    """Show where each head looks."""
    ids = inputs.ids
    maps = compute_attention_maps(inputs.run.model, ids)
    tokens = [inputs.run.tokenizer.decode([i]) for i in ids.tolist()]
    entropy = torch.special.entr(maps).sum(dim=-1).mean(dim=-1)  # (L, H)
    L, H = divmod(int(entropy.argmin()), entropy.shape[1])
    summary = f"attention over {len(ids)} tokens; the most focused head is block {L + 1}, head {H + 1}"
    figures = {"text": "".join(tokens), "entropy_nats": entropy.tolist()}
    return ViewResult("attention", summary, figures, draw_attention(maps, tokens))


def _view_heads(inputs: ViewInput) -> ViewResult:
    """Show how much the loss rises without each head."""
    block_size = inputs.run.config.model.block_size
    windows = take_spaced_windows(inputs.dataset.val, max(1, ABLATION_PREDICTIONS // block_size), block_size)
    loss, rise = measure_head_ablation(inputs.run.model, *windows)
    unused = find_unused_heads(rise)
    L, H = divmod(int(rise.argmax()), rise.shape[1])
    summary = f"without block {L + 1} head {H + 1} the loss rises by {round_rise(float(rise.max())):.3f}; "
    summary += f"{len(unused)} of {rise.numel()} heads hardly matter" if unused else "every head matters"
    figures = {"loss": loss, "rise": rise.tolist(), "unused": unused, "predictions": windows[0].numel()}
    return ViewResult("heads", summary, figures, draw_heads(rise, loss))


def _view_token_loss(inputs: ViewInput) -> ViewResult:
    """Show which tokens surprised the model."""
    losses, tokens = compute_text_losses(inputs.run, inputs.text), split_tokens(inputs.run, inputs.text)
    worst = max(range(len(losses)), key=losses.__getitem__)
    before, token = "".join(tokens[max(0, worst - 9) : worst + 1]), tokens[worst + 1]
    summary = f"{nats_to_bits(sum(losses) / len(losses)):.2f} bits per token; the most surprising is {token!r} after "
    summary += f"{before!r}: {nats_to_bits(losses[worst]):.1f} bits"
    page = make_token_loss_page(f"What surprised {inputs.run.path.name}", tokens, losses)
    return ViewResult("surprise", summary, {"text": inputs.text, "tokens": tokens, "losses": losses}, page)


def _view_embedding(inputs: ViewInput) -> ViewResult:
    """Show whether similar characters have similar vectors."""
    table = inputs.run.model.token_embedding_table.weight.cpu()
    share, chance = measure_neighbor_kinds(table, [classify_character(c) for c in inputs.vocabulary])
    summary = f"{share:.0%} of a character's nearest neighbors are of its kind, {chance:.0%} by chance"
    picture = draw_embedding(table, inputs.vocabulary)
    return ViewResult("embedding", summary, {"share": share, "chance": chance}, picture)


def _view_position(inputs: ViewInput) -> ViewResult:
    """Show the loss by the length of the context."""
    curve = compute_loss_by_position(inputs.run.model, torch.as_tensor(inputs.dataset.val[:MAX_EVALUATED_TOKENS]))
    summary = f"with 1 token of context the loss is {curve[0]:.3f}"
    summary += f", with {len(curve)} it is {curve[-1]:.3f}" if len(curve) > 1 else ", and the model never sees more"
    return ViewResult(
        "position", summary, {"losses": curve.tolist()}, draw_positions({inputs.run.path.name: curve}, inputs.unit)
    )


def _view_temperature(inputs: ViewInput) -> ViewResult:
    """Show how temperature changes the next token's distribution."""
    distributions = compute_next_distributions(inputs.run.model, inputs.ids)
    values = compute_entropies(distributions)
    parts = [f"{value:.2f} bits at {temperature:g}" for temperature, value in zip(TEMPERATURES, values, strict=True)]
    figures = {"temperatures": list(TEMPERATURES), "entropy_bits": values}
    picture = draw_temperature(distributions, inputs.vocabulary, inputs.text, inputs.unit)
    return ViewResult("temperature", f"entropy of the next token by temperature: {', '.join(parts)}", figures, picture)


def _view_copied(inputs: ViewInput) -> ViewResult:
    """Show how much the model copies from its training text."""
    run, source = inputs.run, inputs.training_text
    held_out = inputs.decode(inputs.dataset.val[:GENERATED_LENGTH])
    written = "".join(run.stream(max_new_tokens=GENERATED_LENGTH, seed=run.config.training.seed))
    texts = [(text, find_verbatim(text, source)) for text in (written, held_out)]
    names = ("written", "validation")
    shares = {name: compute_verbatim_shares(covered) for name, (_, covered) in zip(names, texts, strict=True)}
    page = make_memorization_page(f"Does {run.path.name} copy?", *texts)
    return ViewResult("copied", describe_copying(shares["written"], shares["validation"]), shares, page)


def _view_curves(inputs: ViewInput) -> ViewResult:
    """Show the learning curves of the runs."""
    runs = [inputs.run, *inputs.others]
    losses = {str(run.path): run.info.validation_loss for run in runs}
    bits = {str(run.path): run.info.bits_per_byte for run in runs}
    summary = describe_ranking(runs)
    figures = {"validation_losses": losses, "bits_per_byte": bits}
    return ViewResult("curves", summary, figures, draw_curves(runs))


def _view_timeline(inputs: ViewInput) -> ViewResult:
    """Show what the model wrote during training."""
    snapshots = RunDirectory(inputs.run.path).read_snapshots()
    title = f"{inputs.run.path.name}: {inputs.run.info.parameters:,} parameters learn to write"
    picture = draw_timeline(snapshots, title)
    return ViewResult("timeline", f"{len(snapshots)} samples from training, all from the same start", {}, picture)


VIEWS: dict[str, Callable[[ViewInput], ViewResult]] = {
    "surprise": _view_token_loss,
    "attention": _view_attention,
    "heads": _view_heads,
    "position": _view_position,
    "embedding": _view_embedding,
    "temperature": _view_temperature,
    "copied": _view_copied,
    "curves": _view_curves,
    "timeline": _view_timeline,
}


def look(
    run: Run,
    out: Path | None = None,
    text: str | None = None,
    only: Sequence[str] = (),
    against: Sequence[Run] = (),
    data: DataPath = None,
) -> Iterator[ViewResult]:
    """Look inside a run: make the views one after another, and write each to a file of its name.

    A run may lack a view: a bigram model has no heads. Its result then has no picture; if `only` names the view, the
    reason is raised as an error.

    Args:
        run: the run.
        out: the folder of the files. Default: `look` in the run's folder.
        text: the text to look at. Default: the beginning of the validation text.
        only: names of views, from VIEWS. Default: all.
        against: runs whose learning curves are drawn together with this one's.
        data: where the run's training text is now, if it was moved.

    Raises:
        ConfigError: a name in `only` is unknown.
        DataError: the text is empty.
        FileError: the files cannot be written.
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    for name in only:
        if name not in VIEWS:
            raise ConfigError(f"there is no view '{name}': choose from {', '.join(VIEWS)}{suggest_name(name, VIEWS)}")
    if text is not None:
        if not text:
            raise DataError("the text to look at is empty: give at least one character")
        run.tokenizer.encode(text)  # refuse an unknown character before the first view
    if out is None:
        out = RunDirectory(run.path).look
        require_inside(run.path, [out, *out.glob("*")])
    return _make_views(ViewInput(run, text, against, data), out, only)


def _make_views(inputs: ViewInput, out: Path, only: Sequence[str]) -> Iterator[ViewResult]:
    """Make each view and write it."""
    create_folder(out)
    activations = TOKENS_PER_BATCH * inputs.run.config.model.n_embd
    for name in only or VIEWS:
        try:
            with limit_threads(activations), explain_memory_errors("use a smaller run"):
                result = VIEWS[name](inputs)
        except (InputError, OutOfMemoryError) as error:
            if only:
                raise
            yield ViewResult(name, str(error))
            continue
        yield _write_view(result, out)


def _write_view(result: ViewResult, out: Path) -> ViewResult:
    """Write the view's picture to a file, and return the view with its path."""
    assert result.picture is not None
    if isinstance(result.picture, str):
        path = out / f"{result.name}.html"
        write_atomic(path, result.picture.encode("utf-8", "backslashreplace"))
    else:
        path = out / f"{result.name}.png"
        write_png(path, result.picture)
    return replace(result, path=path)
