"""The ladder shown: rows for the terminal, tables in Markdown, and a picture for the back of the room."""

import dataclasses
import html
import statistics
from typing import TYPE_CHECKING, Any

from minigpt.model.loss import nats_to_bits
from minigpt.studies.ladder.directory import Ladder, Result, RungSummary
from minigpt.studies.ladder.rungs import RUNGS
from minigpt.system.plotting import create_figure, replace_undrawable
from minigpt.system.terminal import escape_control_characters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = f"{'':>3} {'rung':<22}{'loss':>8}{'spread':>8}{'change':>9}{'bits':>7}{'parameters':>12}{'chars/s':>11}"
SIDE_BY_SIDE = 90  # characters of each sample that a table has room for
POWERS_OF_TWO = {str(2**i) for i in range(32)}  # the positions of a window that a table has room for
COLOURS = {"counted": "#7f7f7f", "learned": "#1f77b4", "n-gram": "#2ca02c", "blend": "#d62728"}


def format_terminal_lines(ladder: Ladder, seeds: int, full: bool) -> list[str]:
    """The table as far as it is complete: every rung with all its seeds, the n-gram models, and at last the blend."""
    lines = [HEADER]
    rows = ladder.summarize()
    for row, below in zip(rows, [None, *rows], strict=False):
        if row.result.learned and row.seeds < seeds:
            return lines
        lines += [terminal_row(row, below), sample_line(row.result)]
    if len(rows) < len(RUNGS) + full:
        return lines
    lines += [ngram_row(result) for result in ladder.ngrams]
    return lines + (blend_lines(ladder) if len(ladder.blends) >= seeds else [])


def summarize_ladder(ladder: Ladder) -> dict[str, Any]:
    """The ladder for programs: the rungs over all seeds, and the rest as it was measured."""
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


def terminal_row(row: RungSummary, below: RungSummary | None) -> str:
    """A rung as a line below HEADER, with what changed since the rung below it and what that means."""
    result = row.result
    spread = f"{row.spread:.4f}" if row.seeds > 1 else ""
    rate = f"{row.characters_per_second:,.0f}" if result.learned else ""
    line = f"{result.number:>3} {result.name:<22}{row.loss:>8.4f}{spread:>8}{change(row, below):>9}"
    line += f"{nats_to_bits(row.loss):>7.3f}{result.parameters:>12,}{rate:>11}"
    return f"{line}  {describe_difference(row, below)}".rstrip()


def ngram_row(result: Result) -> str:
    """An n-gram model as a line below HEADER; its parameters are the n-grams it holds."""
    line = (
        f"{'':>3} {result.name:<22}{result.loss:>8.4f}{'':>17}{nats_to_bits(result.loss):>7.3f}{result.parameters:>12,}"
    )
    return f"{line}{result.characters / max(result.seconds, 1e-9):>11,.0f}"


def change(row: RungSummary, below: RungSummary | None) -> str:
    """What the step up from the rung below has done to the loss."""
    return "" if below is None else f"{row.loss - below.loss:+.4f}"


def describe_difference(row: RungSummary, below: RungSummary | None) -> str:
    """What has to be said of a rung that is worse than the one below it, or not surely different: within the spread."""
    if below is None:
        return ""
    where, rise, spread = f"rung {below.result.number}", row.loss - below.loss, max(row.spread, below.spread)
    if abs(rise) <= spread:
        return f"not surely {'worse' if rise > 0 else 'better'} than {where}: within the spread"
    return f"worse than {where}" if rise > 0 else ""


def sample_line(result: Result, width: int = 70) -> str:
    """The beginning of what a model wrote, on one line."""
    return f"{'':>4}“{escape_control_characters(result.sample, keep='')[:width]}”"


def blend_lines(ladder: Ladder) -> list[str]:
    """The blend as lines below HEADER, and in words."""
    if not ladder.blends:
        return []
    loss, spread = average_blend_loss(ladder)
    first = ladder.blends[0]
    shown = f"{spread:.4f}" if len(ladder.blends) > 1 else ""
    return [
        f"{'':>3} {'transformer and n-gram':<22}{loss:>8.4f}{shown:>8}{'':>9}{nats_to_bits(loss):>7.3f}",
        f"{'':>4}(1 - w) p_transformer + w p_ngram, order {first.order}, w = {first.weight:.3f} fitted on "
        f"{first.held_out:,} characters kept out of both",
    ]


def format_markdown(ladder: Ladder) -> str:
    """ladder.md: the rungs, the n-gram models, the blend, what each gets right, and the samples."""
    parts = [
        "# The ladder\n",
        about(ladder),
        rung_table(ladder),
        "\n## Counting further\n",
        ngram_table(ladder),
        *(["\n## Side by side\n", blend_text(ladder), comparison_tables(ladder)] if ladder.blends else []),
        "\n## What they write\n",
        samples(ladder),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def about(ladder: Ladder) -> str:
    """What was climbed, on one line."""
    s = ladder.settings
    return (
        f"{s['max_iters']:,} steps a rung of {s['batch_size']} windows of {s['block_size']} characters, n_embd "
        f"{s['n_embd']}, n_head {s['n_head']}, n_layer {s['n_layer']}, learning_rate {s['learning_rate']:g}; exact "
        "validation losses in nats per character. The change is against the rung before it.\n"
    )


def rung_table(ladder: Ladder) -> str:
    """The rungs as a Markdown table."""
    rows = ladder.summarize()
    lines = ["| rung | idea | loss | spread | change | bits | parameters | characters/s |", "| --- " * 8 + "|"]
    for row, below in zip(rows, [None, *rows], strict=False):
        result = row.result
        spread = f"{row.spread:.4f}" if row.seeds > 1 else ""
        rate = f"{row.characters_per_second:,.0f}" if result.learned else ""
        told = f"; {describe_difference(row, below)}" if describe_difference(row, below) else ""
        lines.append(
            f"| {result.number}. {cell(result.name)} | {cell(result.idea + told)} | {row.loss:.4f} | {spread} "
            f"| {change(row, below)} | {nats_to_bits(row.loss):.3f} | {result.parameters:,} | {rate} |"
        )
    counted = rival(ladder)
    if counted:
        figures = f"{counted.loss:.4f} |  |  | {nats_to_bits(counted.loss):.3f} | {counted.parameters:,} |  |"
        lines.append(f"| {cell(counted.name)} | {cell(counted.idea)} | {figures}")
    if ladder.blends:
        loss, differ = average_blend_loss(ladder)
        weight = statistics.mean(blend.weight for blend in ladder.blends)
        shown = f"{differ:.4f}" if len(ladder.blends) > 1 else ""
        idea = f"(1 - w) p_transformer + w p_ngram, w = {weight:.3f}"
        lines.append(f"| transformer and n-gram | {idea} | {loss:.4f} | {shown} |  | {nats_to_bits(loss):.3f} |  |  |")
    return "\n".join(lines)


def rival(ladder: Ladder) -> Result | None:
    """The n-gram model of the order that was blended, chosen without a look at validation; before that, the best."""
    orders = {blend.order for blend in ladder.blends} or {result.number for result in ladder.ngrams}
    return min((r for r in ladder.ngrams if r.number in orders), key=lambda r: r.loss, default=None)


def average_blend_loss(ladder: Ladder) -> tuple[float, float]:
    """The blends' mean loss over all seeds, and its spread; there is at least one."""
    losses = [blend.blended for blend in ladder.blends]
    return statistics.mean(losses), max(losses) - min(losses)


def ngram_table(ladder: Ladder) -> str:
    """The n-gram models as a Markdown table."""
    lines = ["| n-gram model | loss | bits | n-grams held | seconds |", "| --- " * 5 + "|"]
    for result in ladder.ngrams:
        row = f"| {result.loss:.4f} | {nats_to_bits(result.loss):.3f} | {result.parameters:,} | {result.seconds:.1f} |"
        lines.append(f"| order {result.number} {row}")
    return "\n".join(lines)


def blend_text(ladder: Ladder) -> str:
    """The blends as a Markdown table."""
    lines = ["| seed | transformer | n-gram | order | w | blended |", "| --- " * 6 + "|"]
    for b in ladder.blends:
        lines.append(
            f"| {b.seed} | {b.transformer:.4f} | {b.ngram:.4f} | {b.order} | {b.weight:.3f} | {b.blended:.4f} |"
        )
    kept = f"{ladder.blends[0].held_out:,}"
    return "\n".join(lines) + (
        f"\n\np = (1 - w) p_transformer + w p_ngram; w and the order are fitted on the first {kept} characters of the "
        "training text, which both models were kept from.\n"
    )


def cell(text: str) -> str:
    """Text as it stands in a Markdown table, whatever is in it: ladder.json may be a stranger's."""
    return html.escape(text, quote=False).replace("|", "&#124;")


def comparison_tables(ladder: Ladder) -> str:
    """On which characters, where in the window, and how much copied: the first seed's, as Markdown tables.

    Of the positions, those at a power of two; ladder.json has them all.
    """
    seed = ladder.blends[0].seed
    titles = {"kind": "the next character is a …", "position": "characters of context"}
    tables = []
    for by, title in titles.items():
        lines = [f"| {title} | share | transformer | n-gram | blended |", "| --- " * 5 + "|"]
        for c in ladder.comparisons:
            if (c.seed, c.by) == (seed, by) and (by != "position" or c.part in POWERS_OF_TWO):
                losses = f"| {c.transformer:.3f} | {c.ngram:.3f} | {c.blended:.3f} |"
                lines.append(f"| {cell(c.part)} | {c.share:.1%} {losses}")
        tables.append("\n".join(lines))
    lines = ["| copied in runs of at least | transformer | n-gram | validation text |", "| --- " * 4 + "|"]
    for row in ladder.copied:
        if row.seed == seed:
            shares = f"| {row.transformer:.1%} | {row.ngram:.1%} | {row.validation:.1%} |"
            lines.append(f"| {row.length} characters {shares}")
    return "\n\n".join([*tables, "\n".join(lines)])


def samples(ladder: Ladder) -> str:
    """What each model wrote from the same start: the first characters side by side, then the whole."""
    results = [row.result for row in ladder.summarize()] + ladder.ngrams[-1:]
    lines, texts = ["| model | the same start and seed |", "| --- | --- |"], []
    for result in results:
        text = escape_control_characters(result.sample).replace("`", "ʼ")  # a backtick would end the quotation
        line = text[:SIDE_BY_SIDE].replace("\n", "¶").replace("|", "¦")
        lines.append(f"| {cell(result.name)} | `{line}` |")
        texts.append(f"**{cell(result.name)}**\n\n```\n{text}\n```\n")
    return "\n".join([*lines, "", *texts])


def draw_ladder(ladder: Ladder) -> "Figure":
    """The losses falling rung by rung, each with its name and figure."""
    rows = ladder.summarize()
    bars = [(f"{r.result.number}  {r.result.name}", r.loss, "learned" if r.result.learned else "counted") for r in rows]
    counted = rival(ladder)
    if counted:
        bars.append((counted.name, counted.loss, "n-gram"))
    if ladder.blends:
        bars.append(("transformer and n-gram", average_blend_loss(ladder)[0], "blend"))
    figure = create_figure(11, 0.52 * len(bars) + 1.6)
    axes = figure.subplots()
    for place, (_, loss, kind) in enumerate(bars):
        axes.barh(place, loss, color=COLOURS[kind], height=0.74)
        axes.text(loss + 0.04, place, f"{loss:.2f}", va="center", size=17, weight="bold", color=COLOURS[kind])
    axes.set_yticks(range(len(bars)), [replace_undrawable(name) for name, _, _ in bars], size=17, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, max(loss for _, loss, _ in bars) * 1.12)
    axes.tick_params(axis="x", labelsize=13)
    axes.set_xlabel("validation loss (nats per character)", size=15)
    axes.set_title(f"What each idea is worth: {ladder.settings['max_iters']:,} steps a rung", size=19, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
