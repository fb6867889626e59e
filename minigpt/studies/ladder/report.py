"""Reports of a ladder: lines for the terminal, tables in Markdown, a picture."""

import dataclasses
import html
import statistics
from typing import TYPE_CHECKING, Any

from minigpt.model.loss_units import nats_to_bits
from minigpt.studies.ladder.directory import Ladder, Measurement, RungSummary
from minigpt.studies.ladder.rungs import RUNGS
from minigpt.system.plotting import create_figure, replace_undrawable
from minigpt.system.terminal import escape_control_characters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = f"{'':>3} {'rung':<22}{'loss':>8}{'spread':>8}{'change':>9}{'bits':>7}{'parameters':>12}{'chars/s':>11}"
SAMPLE_WIDTH = 90  # characters of a sample that fit in a table
POWERS_OF_TWO = {str(2**i) for i in range(32)}  # the positions that the table shows
COLORS = {"counted": "#7f7f7f", "learned": "#1f77b4", "n-gram": "#2ca02c", "blend": "#d62728"}


def format_terminal_lines(ladder: Ladder, seeds: int, full: bool) -> list[str]:
    """Return the table as far as it is complete: rungs with all seeds, then n-gram models, then the blend."""
    lines = [HEADER]
    rows = ladder.summarize()
    for row, below in zip(rows, [None, *rows], strict=False):
        if row.result.learned and row.seeds < seeds:
            return lines
        lines += [_format_rung(row, below), _format_sample(row.result)]
    if len(rows) < len(RUNGS) + full:
        return lines
    lines += [_format_ngram(result) for result in ladder.ngrams]
    return lines + (_format_blend(ladder) if len(ladder.blends) >= seeds else [])


def summarize_ladder(ladder: Ladder) -> dict[str, Any]:
    """Return the ladder as a dictionary for JSON: the rungs over all seeds, the rest as measured."""
    rungs = [
        {
            "rung": row.result.number,
            "name": row.result.name,
            "seeds": row.seeds,
            "validation_loss": row.loss,
            "spread": row.spread,
            "bits_per_character": nats_to_bits(row.loss),
            "parameters": row.result.parameters,
            "characters_per_second": row.characters_per_second if row.result.learned else None,
            "sample": row.result.sample,
        }
        for row in ladder.summarize()
    ]
    return dataclasses.asdict(ladder) | {"rungs": rungs}


def _format_rung(row: RungSummary, below: RungSummary | None) -> str:
    """Return a rung as a line below HEADER, with its change from the rung below."""
    result = row.result
    spread = f"{row.spread:.4f}" if row.seeds > 1 else ""
    rate = f"{row.characters_per_second:,.0f}" if result.learned else ""
    line = f"{result.number:>3} {result.name:<22}{row.loss:>8.4f}{spread:>8}{_format_change(row, below):>9}"
    line += f"{nats_to_bits(row.loss):>7.3f}{result.parameters:>12,}{rate:>11}"
    return f"{line}  {describe_difference(row, below)}".rstrip()


def _format_ngram(result: Measurement) -> str:
    """Return an n-gram model as a line below HEADER. Its parameters are its n-grams."""
    line = (
        f"{'':>3} {result.name:<22}{result.loss:>8.4f}{'':>17}{nats_to_bits(result.loss):>7.3f}{result.parameters:>12,}"
    )
    return f"{line}{result.characters / max(result.seconds, 1e-9):>11,.0f}"


def _format_change(row: RungSummary, below: RungSummary | None) -> str:
    """Return the change of the loss from the rung below, as text."""
    return "" if below is None else f"{row.loss - below.loss:+z.4f}"


def describe_difference(row: RungSummary, below: RungSummary | None) -> str:
    """Return a warning if a rung is worse than the rung below, or the difference is within the spread of the seeds.

    One seed has no spread, so there is no verdict between two rungs that learn.
    """
    if below is None or (row.result.learned and min(row.seeds, below.seeds if below.result.learned else 2) < 2):
        return ""
    where, rise, spread = f"rung {below.result.number}", row.loss - below.loss, max(row.spread, below.spread)
    if abs(rise) <= spread:
        return f"not clearly {'worse' if rise > 0 else 'better'} than {where}: within the spread"
    return f"worse than {where}" if rise > 0 else ""


def _format_sample(result: Measurement, width: int = 70) -> str:
    """Return the beginning of a sample on one line."""
    return f"{'':>4}“{escape_control_characters(result.sample, keep='')[:width]}”"


def _format_blend(ladder: Ladder) -> list[str]:
    """Return the blend as two lines below HEADER."""
    if not ladder.blends:
        return []
    loss, spread = _average_blend_loss(ladder)
    first = ladder.blends[0]
    shown = f"{spread:.4f}" if len(ladder.blends) > 1 else ""
    return [
        f"{'':>3} {'transformer and n-gram':<22}{loss:>8.4f}{shown:>8}{'':>9}{nats_to_bits(loss):>7.3f}",
        f"{'':>4}(1 - w) p_transformer + w p_ngram, order {first.order}, w = {first.weight:.3f} fitted on "
        f"{first.held_out:,} held-out characters",
    ]


def format_markdown(ladder: Ladder) -> str:
    """Return the content of ladder.md: rungs, n-gram models, blend, comparisons, samples."""
    parts = ["# The ladder\n", _describe_settings(ladder), _format_rung_table(ladder)]
    parts += ["\n## N-gram models\n", _format_ngram_table(ladder)]
    if ladder.blends:
        parts += ["\n## Transformer and n-gram model\n", _format_blend_table(ladder), _format_comparisons(ladder)]
    parts += ["\n## Samples\n", _format_samples(ladder)]
    return "\n".join(part for part in parts if part) + "\n"


def _describe_settings(ladder: Ladder) -> str:
    """Return the settings of the ladder in one line."""
    s = ladder.settings
    return (
        f"{s['max_iters']:,} steps a rung of {s['batch_size']} windows of {s['block_size']} characters, n_embd "
        f"{s['n_embd']}, n_head {s['n_head']}, n_layer {s['n_layer']}, learning_rate {s['learning_rate']:g}; exact "
        "validation losses in nats per character. The change is against the rung before it.\n"
    )


def _format_rung_table(ladder: Ladder) -> str:
    """Return the rungs as a Markdown table."""
    rows = ladder.summarize()
    lines = ["| rung | idea | loss | spread | change | bits | parameters | characters/s |", "| --- " * 8 + "|"]
    for row, below in zip(rows, [None, *rows], strict=False):
        result = row.result
        spread = f"{row.spread:.4f}" if row.seeds > 1 else ""
        rate = f"{row.characters_per_second:,.0f}" if result.learned else ""
        warning = f"; {describe_difference(row, below)}" if describe_difference(row, below) else ""
        name, idea = f"{result.number}. {_escape_cell(result.name)}", _escape_cell(result.idea + warning)
        lines.append(
            f"| {name} | {idea} | {row.loss:.4f} | {spread} | {_format_change(row, below)} "
            f"| {nats_to_bits(row.loss):.3f} | {result.parameters:,} | {rate} |"
        )
    ngram = _find_compared_ngram(ladder)
    if ngram:
        figures = f"{ngram.loss:.4f} |  |  | {nats_to_bits(ngram.loss):.3f} | {ngram.parameters:,} |  |"
        lines.append(f"| {_escape_cell(ngram.name)} | {_escape_cell(ngram.idea)} | {figures}")
    if ladder.blends:
        loss, differ = _average_blend_loss(ladder)
        weight = statistics.mean(blend.weight for blend in ladder.blends)
        shown = f"{differ:.4f}" if len(ladder.blends) > 1 else ""
        idea = f"(1 - w) p_transformer + w p_ngram, w = {weight:.3f}"
        lines.append(f"| transformer and n-gram | {idea} | {loss:.4f} | {shown} |  | {nats_to_bits(loss):.3f} |  |  |")
    return "\n".join(lines)


def _find_compared_ngram(ladder: Ladder) -> Measurement | None:
    """Return the n-gram model of the blend, whose order was chosen on held-out text; without a blend, the best one."""
    orders = {blend.order for blend in ladder.blends} or {result.number for result in ladder.ngrams}
    return min((r for r in ladder.ngrams if r.number in orders), key=lambda r: r.loss, default=None)


def _average_blend_loss(ladder: Ladder) -> tuple[float, float]:
    """Return the blends' mean loss over all seeds, and its spread. There must be a blend."""
    losses = [blend.blended for blend in ladder.blends]
    return statistics.mean(losses), max(losses) - min(losses)


def _format_ngram_table(ladder: Ladder) -> str:
    """Return the n-gram models as a Markdown table."""
    lines = ["| n-gram model | loss | bits | n-grams | seconds |", "| --- " * 5 + "|"]
    for result in ladder.ngrams:
        row = f"| {result.loss:.4f} | {nats_to_bits(result.loss):.3f} | {result.parameters:,} | {result.seconds:.1f} |"
        lines.append(f"| order {result.number} {row}")
    return "\n".join(lines)


def _format_blend_table(ladder: Ladder) -> str:
    """Return the blends as a Markdown table."""
    lines = ["| seed | transformer | n-gram | order | w | blended |", "| --- " * 6 + "|"]
    for b in ladder.blends:
        lines.append(
            f"| {b.seed} | {b.transformer:.4f} | {b.ngram:.4f} | {b.order} | {b.weight:.3f} | {b.blended:.4f} |"
        )
    held_out = f"{ladder.blends[0].held_out:,}"
    return "\n".join(lines) + (
        f"\n\np = (1 - w) p_transformer + w p_ngram; w and the order are fitted on the first {held_out} characters of "
        "the training text, which are held out from both models.\n"
    )


def _escape_cell(text: str) -> str:
    """Escape a text for a Markdown table: ladder.json is untrusted."""
    return html.escape(text, quote=False).replace("|", "&#124;")


def _format_comparisons(ladder: Ladder) -> str:
    """Return Markdown tables of the first seed: losses by kind and by position, and verbatim shares.

    Only positions at a power of two are shown; ladder.json has all of them.
    """
    seed = ladder.blends[0].seed
    titles = {"kind": "next character", "position": "characters of context"}
    tables = []
    for by, title in titles.items():
        lines = [f"| {title} | share | transformer | n-gram | blended |", "| --- " * 5 + "|"]
        for c in ladder.comparisons:
            if (c.seed, c.by) == (seed, by) and (by != "position" or c.part in POWERS_OF_TWO):
                losses = f"| {c.transformer:.3f} | {c.ngram:.3f} | {c.blended:.3f} |"
                lines.append(f"| {_escape_cell(c.part)} | {c.share:.1%} {losses}")
        tables.append("\n".join(lines))
    lines = ["| copied in passages of at least | transformer | n-gram | validation text |", "| --- " * 4 + "|"]
    for row in ladder.copied:
        if row.seed == seed:
            shares = f"| {row.transformer:.1%} | {row.ngram:.1%} | {row.validation:.1%} |"
            lines.append(f"| {row.length} characters {shares}")
    return "\n\n".join([*tables, "\n".join(lines)])


def _format_samples(ladder: Ladder) -> str:
    """Return the samples in Markdown: a table of their beginnings, then each in full."""
    results = [row.result for row in ladder.summarize()] + ladder.ngrams[-1:]
    lines, texts = ["| model | sample from the same start and seed |", "| --- | --- |"], []
    for result in results:
        text = escape_control_characters(result.sample).replace("`", "ʼ")  # a backtick would end the code span
        line = text[:SAMPLE_WIDTH].replace("\n", "¶").replace("|", "¦")
        lines.append(f"| {_escape_cell(result.name)} | `{line}` |")
        texts.append(f"**{_escape_cell(result.name)}**\n\n```\n{text}\n```\n")
    return "\n".join([*lines, "", *texts])


def draw_ladder(ladder: Ladder) -> "Figure":
    """Draw the loss of each rung as a bar with its name and value."""
    rows = ladder.summarize()
    bars = [(f"{r.result.number}  {r.result.name}", r.loss, "learned" if r.result.learned else "counted") for r in rows]
    ngram = _find_compared_ngram(ladder)
    if ngram:
        bars.append((ngram.name, ngram.loss, "n-gram"))
    if ladder.blends:
        bars.append(("transformer and n-gram", _average_blend_loss(ladder)[0], "blend"))
    figure = create_figure(11, 0.52 * len(bars) + 1.6)
    axes = figure.subplots()
    for place, (_, loss, kind) in enumerate(bars):
        axes.barh(place, loss, color=COLORS[kind], height=0.74)
        axes.text(loss + 0.04, place, f"{loss:.2f}", va="center", size=17, weight="bold", color=COLORS[kind])
    axes.set_yticks(range(len(bars)), [replace_undrawable(name) for name, _, _ in bars], size=17, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(loss for _, loss, _ in bars) * 1.12)
    axes.tick_params(axis="x", labelsize=13)
    axes.set_xlabel("validation loss (nats per character)", size=15)
    axes.set_title(f"What each idea is worth: {ladder.settings['max_iters']:,} steps a rung", size=19, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
