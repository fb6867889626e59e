"""What the commands share: opening a run, describing it, printing."""

import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import click

from minigpt.errors import ConfigError
from minigpt.system.advice import find_program_name
from minigpt.system.terminal import escape_control_characters, fit_to_terminal

if TYPE_CHECKING:
    from minigpt.config import Config
    from minigpt.runs.exact_loss import ExactLoss
    from minigpt.runs.run import Run
    from minigpt.runs.run_info import RunInfo
    from minigpt.runs.run_overview import RunOverview


def open_run(
    path: str | None,
    weights: str = "last",
    device: str = "auto",
    adapters: Sequence[str] = (),
    adapter_scale: float = 1.0,
) -> "Run":
    """Open a run and add adapters to its weights.

    Args:
        path: as for `find_run`.
        weights: "last" or "best".
        device: where to compute.
        adapters: FOLDER or FOLDER:SCALE of each adapter.
        adapter_scale: multiplies all adapters.
    """
    from minigpt.runs.run import Run

    run = Run.open(find_run(path), weights=weights, device=device)  # type: ignore[arg-type]
    if adapter_scale != 1 and not adapters:
        raise ConfigError("--adapter-scale is for adapters: name one with --adapter, or leave it out")
    if adapters:
        from minigpt.finetuning.adapter_files import apply_adapters

        run = apply_adapters(run, adapters, adapter_scale)
    return run


def find_run(path: str | None) -> Path:
    """Return a run's folder.

    Args:
        path: the folder, or a path inside it, such as its model.safetensors. None finds the newest run in runs/ and
            prints its name on standard error.
    """
    from minigpt.runs.run_directory import find_newest_run

    if path is None:
        newest = find_newest_run()
        print_message(f"the newest run: {newest}")
        return newest
    found = Path(path)
    folders = (found, *found.parents) if found.exists() else ()
    return next((folder for folder in folders if (folder / "run.json").is_file()), found)


def print_next_command(run: "Run", command: str) -> None:
    """Print where the run is, and the command to type next, as a shell understands it."""
    print_line(f"the run is in {run.path}; next: {find_program_name()} {command} {_quote_path(run)}")


def print_finished(run: "Run", command: str, as_json: bool) -> None:
    """Print that a run needs no resuming: its loss, and the commands to type next."""
    if as_json:
        print_json(describe_run(run))
        return
    info, loss = run.info, run.info.validation_loss
    exact = "" if loss is None else ": " + format_loss("validation loss", loss, run.config, info)
    print_line(f"the run is finished after {info.step:,} steps{exact}")
    is_complete = info.step == run.config.training.max_iters  # otherwise early stopping ended it
    change = f"--max-iters {2 * info.step}" if is_complete else "--patience 0"
    print_line(f"for more steps: {find_program_name()} {command} --resume {_quote_path(run)} {change}")
    print_next_command(run, "sample")


def _quote_path(run: "Run") -> str:
    """Return the run's path as a word of a command."""
    return shlex.quote(f"./{run.path}" if str(run.path).startswith("-") else str(run.path))


def print_pieces(pieces: Iterable[str]) -> None:
    """Print pieces of text as they come. A terminal gets visible marks instead of control characters."""
    terminal = sys.stdout.isatty()
    for piece in pieces:
        sys.stdout.write(escape_control_characters(piece) if terminal else piece)
        sys.stdout.flush()


def print_line(text: str, indent: int = 0) -> None:
    """Print a line. A terminal gets visible marks instead of control characters, and line breaks between words.

    Args:
        text: the line.
        indent: spaces before what does not fit in the terminal's first line.
    """
    print_pieces([fit_to_terminal(text, sys.stdout, indent), "\n"])


def print_message(message: str) -> None:
    """Print a line on standard error, with visible marks instead of control characters."""
    click.echo(fit_to_terminal(escape_control_characters(message), sys.stderr), err=True)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object. A number that JSON does not have, such as infinity, becomes null."""
    print(json.dumps(_replace_non_finite(content), indent=2, allow_nan=False))


def _replace_non_finite(content: Any) -> Any:
    """Return a copy with None for each float that is not finite."""
    if isinstance(content, Mapping):
        return {name: _replace_non_finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_replace_non_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def format_loss(name: str, nats: float, config: "Config", exact: Union["ExactLoss", "RunInfo"]) -> str:
    """Return an exact loss in nats, bits and perplexity, as text.

    Args:
        name: what the loss is called.
        nats: the loss per token.
        config: the run's configuration.
        exact: what was measured.
    """
    from minigpt.model.loss_units import nats_to_bits, nats_to_perplexity

    if getattr(exact, "instructions", False) and exact.bits_per_byte is None:
        return f"{name} {nats:.4f} on held-out pairs of answers (loss of a random guess: {math.log(2):.4f})"
    per_byte, per_character = exact.bits_per_byte, exact.bits_per_character
    is_of_characters = config.training.tokenizer == "char"
    unit, in_bits = "token", ""
    if is_of_characters and per_character is not None:
        if math.isclose(per_character, nats_to_bits(nats)):
            unit, in_bits = "character", f"{per_character:.4f} bits, "
        else:  # tokens between documents cost bits too
            in_bits = f"{per_character:.4f} bits per character of the text, "
    elif per_byte is not None:
        in_bits = f"{per_byte:.4f} bits per byte of the text, "
    measured_tokens, all_tokens = exact.predictions, exact.possible_predictions
    is_part = measured_tokens and all_tokens and measured_tokens < all_tokens
    part = f" on {measured_tokens:,} of {all_tokens:,} tokens, evenly spread" if is_part else ""
    return f"{name} {nats:.4f} nats per {unit} (exact{part}; {in_bits}perplexity {nats_to_perplexity(nats):,.3f})"


def format_times(info: "RunInfo") -> str:
    """Return the times of a run, as text."""
    from minigpt.training.stopwatch import format_duration

    training, evaluation = format_duration(info.training_seconds), format_duration(info.evaluation_seconds)
    return f"{training} of training, {evaluation} of evaluation"


def describe_run(run: Union["Run", "RunOverview"]) -> dict[str, Any]:
    """Return all that is known about a run, for JSON."""
    from minigpt.runs.run_overview import count_parameters_by_part

    return {
        "run": str(run.path),
        **dataclasses.asdict(run.info),
        "parameters_by_part": count_parameters_by_part(run.path),
        "best": dataclasses.asdict(run.best) if run.best else None,
        "config": dataclasses.asdict(run.config),
    }
