"""`minigpt plan`."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.config_file import describe_presets, read_config
from minigpt.cli.options import GroupedCommand, Option, json_option, settings_options
from minigpt.cli.output import print_json
from minigpt.config import Config, ModelConfig, TrainingConfig
from minigpt.config_fields import drop_unset
from minigpt.presets import PRESETS
from minigpt.training.planning.machine import Machine

if TYPE_CHECKING:
    from minigpt.training.planning.plan import Plan, Strategy

TRAINING = {"batch_size", "max_iters", "gradient_accumulation", "precision", "device"}  # what the formulas use
GPT_PRESETS = [name for name, preset in PRESETS.items() if preset.settings.get("architecture", "gpt") == "gpt"]
MEMORY_ROWS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer (AdamW)",
    "exchange": "exchange buffers",
    "activations": "activations",
    "working": "temporary tensors",
    "total": "memory",
}
LABEL_WIDTH, COLUMN_WIDTH = 26, 20
TIME_NOTE = "(the time leaves out evaluations, reading the data, and waiting for the other GPUs)"
FIT_WAY_OUT = "take more GPUs, a smaller --batch-size with more --gradient-accumulation, or a smaller model"


@click.command(
    cls=GroupedCommand,
    epilog=describe_presets(GPT_PRESETS),
    short_help="Compute the memory and time of a training run.",
)
@click.option("--preset", metavar="NAME", help=f"the settings to start from: {', '.join(GPT_PRESETS)} [lecture]")
@click.option("--config", "config_file", metavar="FILE", help="a TOML file of settings, such as a run's own")
@json_option
@settings_options("Machine", Machine)
@click.option("--vocab-size", cls=Option, group="Model", type=int, help="number of different tokens [65]")
@settings_options("Model", ModelConfig, without={"architecture", "implementation"})
@settings_options("Training", TrainingConfig, without={*TrainingConfig.names()} - TRAINING)
def plan(preset: str | None, config_file: str | None, as_json: bool, **fields: Any) -> None:
    """Compute the memory, communication, FLOPs and hours of a training run. Nothing is trained.

    On several GPUs the table compares DDP, which copies the model to every GPU, with FSDP, which splits it. Each is
    shown with all activations kept, and with activations recomputed. --device auto means a GPU here.
    """
    machine = Machine.from_keywords(**drop_unset({name: fields.pop(name) for name in Machine.names()}))
    config = read_config(config_file, preset).override(**drop_unset(fields))
    if config.training.precision == "auto":
        config = config.override(precision="bf16")  # a GPU's
    from minigpt.training.planning.plan import plan

    result = plan(config, machine)
    if as_json:
        print_json(_describe_plan(result, machine))
    else:
        lines = [
            *_format_summary(result, config, machine),
            "",
            *_format_table(result),
            TIME_NOTE,
            "",
            _describe_fit(result, machine),
        ]
        print("\n".join(lines))


def _describe_plan(result: "Plan", machine: Machine) -> dict[str, Any]:
    """Return the plan as a dictionary, with the totals that its dataclasses compute."""
    content = dataclasses.asdict(result) | dataclasses.asdict(machine)
    for strategy, shown in zip(result.strategies, content["strategies"], strict=True):
        shown["memory"]["total"] = strategy.memory.total
    return content | {"parameters": result.parameters.total}


def _format_summary(result: "Plan", config: Config, machine: Machine) -> list[str]:
    """Return the figures that all strategies share."""
    counts = result.parameters
    blocks = f"{counts.blocks:,} in {config.model.n_layer:,} blocks, {counts.outside:,} outside"
    gpus = f"{machine.gpus:,} GPU{'s' if machine.gpus > 1 else ''}"
    speed = format_amount(machine.compute_flops(config), "FLOP/s")
    return [
        f"{'parameters':<12}{counts.total:,}: {blocks}",
        f"{'tokens':<12}{result.tokens_per_step:,} a step, {result.tokens:,} in {config.training.max_iters:,} steps",
        f"{'FLOPs':<12}{format_amount(result.flops_per_token, 'FLOP')} a token",
        f"{'speed':<12}{speed}: {gpus}, at {machine.utilization:.0%} of their peak",
    ]


def _format_table(result: "Plan") -> list[str]:
    """Return an aligned table with a column for each strategy."""
    strategies = result.strategies
    rows = [("on each GPU", [_name_strategy(s) for s in strategies])]
    for part, label in MEMORY_ROWS.items():
        amounts = [s.memory.total if part == "total" else getattr(s.memory, part) for s in strategies]
        if part != "exchange" or any(amounts):
            rows.append((label, [format_amount(amount, "B") for amount in amounts]))
    if any(s.bytes_sent for s in strategies):
        rows.append(("sent, received a step", [format_amount(s.bytes_sent, "B") for s in strategies]))
    rows.append(("FLOPs of all GPUs", [format_amount(s.flops, "FLOP") for s in strategies]))
    rows.append(("time", [_format_hours(s.seconds) for s in strategies]))
    return [f"{label:<{LABEL_WIDTH}}" + "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells) for label, cells in rows]


def _describe_fit(result: "Plan", machine: Machine) -> str:
    """Return a sentence that names the strategies that fit in a GPU's memory."""
    if machine.memory is None:
        least = min(result.strategies, key=lambda strategy: strategy.memory.total)
        return f"the least memory is {format_amount(least.memory.total, 'B')} on a GPU: {_name_strategy(least)}"
    fitting = [_name_strategy(s) for s in result.strategies if s.memory.total <= machine.memory * 1e9]
    room = f"{machine.memory:g} GB"
    return f"fits in {room}: {'; '.join(fitting)}" if fitting else f"nothing fits in {room}: {FIT_WAY_OUT}"


def _name_strategy(strategy: "Strategy") -> str:
    """Return a short name, such as "FSDP, recomputed"."""
    if strategy.parallel == "single":
        return "recomputed" if strategy.recompute else "kept"
    return strategy.parallel.upper() + (", recomputed" if strategy.recompute else "")


def format_amount(number: float, unit: str) -> str:
    """Return a number with three digits and a prefix of its unit.

    >>> format_amount(124_439_808, "B")
    '124 MB'
    """
    prefixes = ["", "K", "M", "G", "T", "P", "E", "Z", "Y"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    digits = 0 if number >= 99.95 or number == int(number) else 1 if number >= 9.995 else 2
    return f"{number:,.{digits}f} {prefixes[0]}{unit}"


def _format_hours(seconds: float) -> str:
    """Return a time in seconds, minutes or hours.

    >>> _format_hours(12_345)
    '3 h 26 min'
    """
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"
