"""What `minigpt finetune` prints at the end."""

import math
import shlex
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.output import (
    describe_run,
    format_loss,
    print_json,
    print_line,
    print_message,
    print_next_command,
    print_pieces,
)

if TYPE_CHECKING:
    from minigpt.finetuning.dpo import DPOResult
    from minigpt.finetuning.sft import SFTResult
    from minigpt.finetuning.text_finetuning import TextResult

MUCH_FORGOTTEN = 0.5  # nats per token


def show_result(result: "TextResult | SFTResult | DPOResult", as_json: bool) -> None:
    """Print what a fine-tuning has learned and forgotten, and what to type next."""
    from minigpt.finetuning.dpo import DPOResult
    from minigpt.finetuning.sft import SFTResult

    if isinstance(result, DPOResult):
        _show_dpo(result, as_json)
    elif isinstance(result, SFTResult):
        _show_sft(result, as_json)
    else:
        _show_finetuned(result, as_json)


def _show_finetuned(result: "TextResult", as_json: bool) -> None:
    """Print a sample, what the model learned, what it forgot, and what to type next."""
    run = result.run
    if as_json:
        own = {"own_loss_before": result.own_loss_before, "own_loss_after": result.own_loss_after}
        _print_result_json(result, loss_before=result.loss_before, **own)
        return
    click.echo("\nwhat the model writes now:\n", err=True)
    print_pieces(run.stream(max_new_tokens=300, seed=run.config.training.seed))
    loss = format_loss("validation loss", result.loss_after, run.config, run.info)
    print(f"\n\n{loss}; before {result.loss_before:.4f}")
    print_own_loss(result.own_loss_before, result.own_loss_after)
    if result.adapter:
        size = sum(file.stat().st_size for file in result.adapter.iterdir())
        print_pieces([f"the adapter alone, {size / 1000:,.0f} kB, is in {shlex.quote(str(result.adapter))}\n"])
    _print_next(result, "sample")


def _show_sft(result: "SFTResult", as_json: bool) -> None:
    """Print how many answers are right, what was forgotten, and what to type next."""
    if as_json:
        tasks = {
            task: {
                "before": accuracy.before and accuracy.before.share,
                "after": accuracy.after.share,
                "interval": accuracy.after.interval,
                "asked": accuracy.after.total,
                "majority": accuracy.majority.share,
            }
            for task, accuracy in result.accuracies.items()
        }
        own = {"own_loss_before": result.own_loss_before, "own_loss_after": result.own_loss_after}
        _print_result_json(result, tasks=tasks, **own, truncated=result.truncated)
        return
    for task, accuracy in result.accuracies.items():
        before = f", before {accuracy.before.share:.1%}" if accuracy.before else ""
        after = f"{accuracy.after} of {accuracy.after.total:,} right{before}"
        print_pieces([f"{task:<14} {after}; always the most frequent answer: {accuracy.majority.share:.1%} right\n"])
    print_own_loss(result.own_loss_before, result.own_loss_after)
    _print_next(result, "chat")


def _show_dpo(result: "DPOResult", as_json: bool) -> None:
    """Print how often the better answer is the likelier one, and what to type next."""
    before, after = result.preferred_before, result.preferred_after
    if as_json:
        shares = {"preferred_before": before.share, "preferred": after.share, "asked": after.total}
        _print_result_json(result, **shares, truncated=result.truncated)
        return
    print(f"the chosen answer is the likelier one in {after} of {after.total:,} held-out pairs", end="")
    print(f"; before {before.share:.1%}\nloss of these pairs {result.loss:.4f}; before {math.log(2):.4f}")
    _print_next(result, "chat")


def _print_result_json(result: "TextResult | SFTResult | DPOResult", **figures: Any) -> None:
    """Print the run, the figures and the adapter's path as JSON."""
    more = {"problem": result.problem, "adapter": result.adapter and str(result.adapter)}
    print_json({**describe_run(result.run), **figures, **more})


def _print_next(result: "TextResult | SFTResult | DPOResult", command: str) -> None:
    """Print where the run is and, unless it is useless, the command to type next."""
    if result.problem:
        print_line(f"the run is in {result.run.path}")
    else:
        print_next_command(result.run, command)


def print_own_loss(before: float | None, after: float | None) -> None:
    """Say how much the loss on the base's own text has changed, with a warning where much is forgotten."""
    if before is None or after is None:
        return
    figures = f"the loss on the base's own text {'rose' if after > before else 'fell'} by {abs(after - before):.2f}"
    print(f"{'forgotten' if after > before else 'kept'}: {figures}, from {before:.4f} to {after:.4f}")
    if after - before > MUCH_FORGOTTEN:
        way_out = "fewer steps (--max-iters), a lower --learning-rate or --lora forget less"
        print_message(f"warning: the model writes the base's text much worse than before: {way_out}")
