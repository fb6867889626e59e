"""What `minigpt finetune` shows in the end."""

import math
import shlex
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.output import describe_run, format_loss, print_json, print_pieces

if TYPE_CHECKING:
    from minigpt.finetuning.dpo import Preferred
    from minigpt.finetuning.finetune import Finetuned
    from minigpt.finetuning.sft import Instructed
    from minigpt.runs.run import Run


def show_preferred(found: "Preferred", as_json: bool) -> None:
    """How often the better answer is the likelier one, and what to type next."""
    run = found.run
    if as_json:
        shares = {"preferred_before": found.before.share, "preferred": found.after.share, "asked": found.after.asked}
        print_figures(found, **shares, truncated=found.truncated)
        return
    print(f"the chosen answer is the likelier one in {found.after} of {found.after.asked:,} held-out pairs", end="")
    print(f"; before {found.before.share:.1%}\nloss of these pairs {found.loss:.4f}; before {math.log(2):.4f}")
    say_where(run, "chat")


def show_instructed(found: "Instructed", as_json: bool) -> None:
    """How many answers are right, what was forgotten, and what to type next."""
    run = found.run
    if as_json:
        shares = {
            task: {
                "before": before and before.share,
                "after": after.share,
                "interval": after.interval,
                "asked": after.asked,
                "majority": usual.share,
            }
            for task, (before, after, usual) in found.accuracies.items()
        }
        own = {"own_loss_before": found.own_before, "own_loss_after": found.own_after}
        print_figures(found, tasks=shares, **own, truncated=found.truncated)
        return
    for task, (before, after, usual) in found.accuracies.items():
        was = f", before {before.share:.1%}" if before else ""
        print_pieces(
            [f"{task:<14} {after} of {after.asked:,} right{was}; the most frequent answer {usual.share:.1%}\n"]
        )
    if found.own_before is not None and found.own_after is not None:
        print(f"loss {on_own_text(found.own_before, found.own_after)}")
    say_where(run, "chat")


def show_finetuned(found: "Finetuned", as_json: bool) -> None:
    """What the model writes, what it learned, what it forgot, and what to type next."""
    run = found.run
    if as_json:
        own = {"own_loss_before": found.own_before, "own_loss_after": found.own_after}
        print_figures(found, loss_before=found.before.loss, **own)
        return
    click.echo("\nwhat the model writes now:\n", err=True)
    print_pieces(run.stream(max_new_tokens=300, seed=run.config.training.seed))
    print(f"\n\n{format_loss('validation loss', found.after, run.config, run.record)}; before {found.before.loss:.4f}")
    if found.own_before is not None and found.own_after is not None:
        print(on_own_text(found.own_before, found.own_after))
    if found.adapter:
        size = sum(file.stat().st_size for file in found.adapter.iterdir())
        print_pieces([f"the adapter alone, {size / 1000:,.0f} kB, is in {shlex.quote(str(found.adapter))}\n"])
    say_where(run, "sample")


def print_figures(found: "Finetuned | Instructed | Preferred", **figures: Any) -> None:
    """The run, those figures and where the adapter is, for programs."""
    print_json({**describe_run(found.run), **figures, "adapter": found.adapter and str(found.adapter)})


def on_own_text(before: float, after: float) -> str:
    """What was forgotten."""
    return f"on the base's own text {after:.4f}, before {before:.4f}: {after - before:+.4f}"


def say_where(run: "Run", then: str) -> None:
    """Where the run is, and what to do with it."""
    path = shlex.quote(str(run.path))
    print_pieces([f"the run is in {path}; next: minigpt {then} {path}\n"])
