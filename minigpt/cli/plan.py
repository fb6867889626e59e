"""`minigpt plan`."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.options import GroupedCommand, Option, given, json_option, settings
from minigpt.cli.output import print_object
from minigpt.cli.train import read_config, told
from minigpt.config import Config, ModelConfig, TrainingConfig
from minigpt.presets import PRESETS
from minigpt.training.machine import Machine

if TYPE_CHECKING:
    from minigpt.training.plan import Plan, Way

COUNTED = {"batch_size", "max_iters", "gradient_accumulation", "precision", "device"}  # of the training's settings
EXCHANGED = {"ddp": "buckets of gradients", "fsdp": "blocks gathered whole"}
PLANNED = [name for name, preset in PRESETS.items() if preset.settings.get("architecture", "gpt") == "gpt"]
LABEL, COLUMN = 26, 20  # characters
WAY_OUT = "take more GPUs, a smaller --batch-size with more --gradient-accumulation, or a smaller model"


@click.command(cls=GroupedCommand, epilog=told(PLANNED), short_help="Say what a training takes, by size.")
@click.option("--preset", metavar="NAME", help=f"the settings to begin with: {', '.join(PLANNED)} [lecture]")
@click.option("--config", "config_file", metavar="FILE", help="a TOML file of settings, such as a run's own")
@json_option
@settings("Machine", Machine)
@click.option("--vocab-size", cls=Option, group="Model", type=int, help="how many different tokens there are [65]")
@settings("Model", ModelConfig, without={"architecture", "implementation"})
@settings("Training", TrainingConfig, without={*TrainingConfig.names()} - COUNTED)
def plan(preset: str | None, config_file: str | None, as_json: bool, **fields: Any) -> None:
    """Say what a training takes, by size: memory, communication, FLOPs, hours. Nothing is run.

    On several GPUs by DDP, which keeps everything whole on each, and by FSDP, which cuts it up; with all activations
    kept, and with those of a block computed again. --device auto is a GPU here.
    """
    machine = Machine.from_keywords(**given({name: fields.pop(name) for name in Machine.names()}))
    config = read_config(config_file, preset).override(**given(fields))
    from minigpt.training.plan import plan

    if config.training.precision == "auto":
        config = config.override(precision="bf16")  # of a GPU
    planned = plan(config, machine)
    if as_json:
        print_object(as_object(planned, machine))
    else:
        print("\n".join([*facts(planned, config, machine), "", *table(planned), "", verdict(planned, machine)]))


def as_object(planned: "Plan", machine: Machine) -> dict[str, Any]:
    """All of a plan, for programs; the totals too, which its dataclasses compute."""
    content = dataclasses.asdict(planned) | dataclasses.asdict(machine)
    for way, shown in zip(planned.ways, content["ways"], strict=True):
        shown["memory"]["total"] = way.memory.total
    return content | {"parameters": planned.parameters.total}


def facts(planned: "Plan", config: Config, machine: Machine) -> list[str]:
    """What holds for every way, as lines."""
    p, reached = planned.parameters, machine.reached(config)
    blocks = f"{p.blocks:,} in {config.model.n_layer:,} blocks, {p.outside:,} outside"
    gpus = f"{machine.gpus:,} GPU{'s' if machine.gpus > 1 else ''}"
    return [
        f"{'parameters':<12}{p.total:,}: {blocks}",
        f"{'tokens':<12}{planned.tokens_per_step:,} a step, {planned.tokens:,} in {config.training.max_iters:,} steps",
        f"{'FLOPs':<12}{in_units(planned.flops_per_token, 'FLOP')} a token",
        f"{'speed':<12}{in_units(reached, 'FLOP/s')}: {gpus}, {machine.utilisation:.0%} of what they can do",
    ]


def table(planned: "Plan") -> list[str]:
    """A column for each way, in aligned lines."""
    ways = planned.ways
    exchanged = ", ".join(EXCHANGED[way.sharing] for way in ways[::2] if way.sharing in EXCHANGED)
    rows = [("on each GPU", [name_of(way) for way in ways])]
    rows += [
        (label, [in_units(getattr(way.memory, part), "B") for way in ways])
        for label, part in (
            ("weights", "weights"),
            ("gradients", "gradients"),
            ("AdamW's averages", "averages"),
            ("copies to exchange", "exchange"),
            ("activations kept", "activations"),
            ("passing, at most", "passing"),
            ("memory", "total"),
        )
        if part != "exchange" or exchanged
    ]
    if exchanged:
        rows.append(("sent, received a step", [in_units(way.sent, "B") for way in ways]))
    rows.append(("FLOPs of all GPUs", [in_units(way.flops, "FLOP") for way in ways]))
    rows.append(("time", [duration(way.seconds) for way in ways]))
    return [f"{label:<{LABEL}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells) for label, cells in rows]


def verdict(planned: "Plan", machine: Machine) -> str:
    """What fits, in a sentence."""
    if machine.memory is None:
        least = min(planned.ways, key=lambda way: way.memory.total)
        return f"the least memory is {in_units(least.memory.total, 'B')} on a GPU: {name_of(least)}"
    fitting = [name_of(way) for way in planned.ways if way.memory.total <= machine.memory * 1e9]
    room = f"{machine.memory:g} GB"
    return f"fits in {room}: {'; '.join(fitting)}" if fitting else f"nothing of this fits in {room}: {WAY_OUT}"


def name_of(way: "Way") -> str:
    """What a way is called."""
    sharing = {"alone": "", "ddp": "DDP", "fsdp": "FSDP"}[way.sharing]
    return ", ".join(filter(None, (sharing, "recomputed" if way.recomputed else "" if sharing else "kept")))


def in_units(number: float, unit: str) -> str:
    """A number in three digits and powers of 1000.

    >>> in_units(124_439_808, "B")
    '124 MB'
    """
    prefixes = ["", "K", "M", "G", "T", "P", "E", "Z", "Y"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    digits = 0 if number >= 99.95 or number == int(number) else 1 if number >= 9.995 else 2
    return f"{number:,.{digits}f} {prefixes[0]}{unit}"


def duration(seconds: float) -> str:
    """A time in the two units that matter.

    >>> duration(12_345)
    '3 h 26 min'
    """
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"
