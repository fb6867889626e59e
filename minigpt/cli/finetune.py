"""`minigpt finetune`."""

from pathlib import Path
from typing import Any, Literal

import click

from minigpt.cli.finetune_report import show_result
from minigpt.cli.options import GroupedCommand, Option, data_option, json_option, settings_options
from minigpt.cli.output import open_run, print_finished
from minigpt.config import DataPath, TrainingConfig
from minigpt.config_fields import drop_unset
from minigpt.errors import ConfigError
from minigpt.finetuning.settings import FIXED

ADAPTERS = "Adapters"
ADAPTER_FLAGS = ("lora", "qlora", "rank", "alpha", "lora_dropout", "target", "rslora", "dora")
DEFAULTS = {
    "max_iters": "500; with --task 1500 for each, with adapters 3000, and twice that at least",
    "optimizer": "adamw",
    "learning_rate": "1e-3 with adapters, 1e-4 without; with --preferences 2e-4 and 2e-5; for instructions 5e-3 and "
    "2e-3 up to a width of 64, and less in proportion for wider models",
    "min_learning_rate": "0",
    "log_to": "none",
    "schedule": "the base run's; for instructions cosine, with a warmup of 100 steps",
}


@click.command(cls=GroupedCommand, short_help="Fine-tune a run on a text, tasks or preferences.")
@click.argument("run", required=False)
@data_option("a text, prepared data, or JSON with instructions and answers")
@click.option("--task", multiple=True, metavar="NAME", help="a built-in word task: upper, reverse, …; may be repeated")
@click.option("--ask", multiple=True, metavar="A+B", help="two tasks one after the other, tested but not trained")
@click.option("--preferences", metavar="FILE", help="JSON with prompt, chosen and rejected answer, for DPO")
@click.option("--beta", type=float, help="how strongly DPO keeps the model near its base [0.1]")
@click.option(
    "--new-characters",
    type=click.Choice(["add", "replace"]),
    help="characters of a text outside the base's vocabulary: add a token for each, or replace them by one token",
)
@click.option("--out", metavar="FOLDER", help="the new run's folder; a name already taken gets a number")
@click.option("--resume", metavar="FOLDER", help="continue a stopped fine-tuning, in its folder, with its own settings")
@click.option("--base", metavar="FOLDER", help="for --resume: where the base run is now, if it was moved")
@json_option
@click.option("--lora", is_flag=True, cls=Option, group=ADAPTERS, help="train adapters, and freeze the weights")
@click.option(
    "--qlora", is_flag=True, cls=Option, group=ADAPTERS, help="train adapters, and freeze the weights in 4 bits"
)
@click.option("--rank", type=int, cls=Option, group=ADAPTERS, help="rank of each adapter [8]")
@click.option(
    "--alpha", type=float, cls=Option, group=ADAPTERS, help="an adapter's update is multiplied by alpha / rank [16]"
)
@click.option(
    "--lora-dropout",
    type=float,
    cls=Option,
    group=ADAPTERS,
    help="share of an adapter's inputs set to zero in training [0]",
)
@click.option(
    "--target",
    multiple=True,
    metavar="LAYER",
    cls=Option,
    group=ADAPTERS,
    help="a layer with an adapter, such as qkv; may be repeated [all]",
)
@click.option("--rslora", is_flag=True, cls=Option, group=ADAPTERS, help="divide alpha by the square root of the rank")
@click.option(
    "--dora", is_flag=True, cls=Option, group=ADAPTERS, help="also train the norm of each row of the weight matrices"
)
@settings_options("Training", TrainingConfig, without=FIXED, defaults=DEFAULTS, other_defaults="the base run's")
def finetune(
    run: str | None,
    data: DataPath,
    task: tuple[str, ...],
    ask: tuple[str, ...],
    preferences: str | None,
    beta: float | None,
    new_characters: str | None,
    out: str | None,
    resume: str | None,
    base: str | None,
    as_json: bool,
    lora: bool,
    qlora: bool,
    rank: int | None,
    alpha: float | None,
    lora_dropout: float | None,
    target: tuple[str, ...],
    rslora: bool,
    dora: bool,
    **fields: Any,
) -> None:
    """Fine-tune a run on a text, instructions or preferences: all its weights, or adapters with --lora or --qlora.

    RUN is the base run's folder, which is not changed. The result is a new run with the adapters merged. Its folder
    "adapter" has the adapters alone, in PEFT's format, for minigpt sample RUN --adapter FOLDER.
    """
    if resume is not None:
        _require_resume_flags()
        _resume(resume, base, data, drop_unset(fields), as_json)
        return
    if run is None:
        raise ConfigError("name the run to fine-tune: minigpt finetune RUN, or --resume RUN to continue")
    if base is not None:
        raise ConfigError("--base needs --resume: name the base as RUN")
    method = _choose_method(lora, qlora)
    sizes = drop_unset({"rank": rank, "alpha": alpha, "dropout": lora_dropout})
    variants = {name: True for name, is_set in (("rslora", rslora), ("dora", dora)) if is_set}
    if method == "full" and (given := [*sizes, *(["target"] if target else []), *variants]):
        raise ConfigError(f"{given[0]} is a setting of adapters: add --lora or --qlora, or leave it out")
    if sum((data is not None, bool(task), preferences is not None)) != 1:
        raise ConfigError("give exactly one of --data, --task and --preferences")
    if ask and not task:
        raise ConfigError("--ask needs --task: add --task NAME, or leave --ask out")
    if beta is not None and preferences is None:
        raise ConfigError("--beta needs --preferences: add --preferences FILE, or leave --beta out")
    from minigpt.finetuning.finetune import finetune
    from minigpt.finetuning.lora_layer import LoRAConfig

    base_run = open_run(run, device=fields["device"] or "auto")
    adapters, layers = LoRAConfig(**sizes, **variants), target or None
    more = drop_unset({"beta": beta, "new_characters": new_characters, **fields})
    result = finetune(base_run, data, task, ask, preferences, method, adapters, layers, out, **more)
    show_result(result, as_json)


def _choose_method(lora: bool, qlora: bool) -> Literal["full", "lora", "qlora"]:
    """Return what trains. Raise ConfigError if both flags are given."""
    if lora and qlora:
        raise ConfigError("--lora and --qlora cannot be combined: name one")
    return "qlora" if qlora else "lora" if lora else "full"


def _require_resume_flags() -> None:
    """Raise ConfigError for a flag that does not go with --resume."""
    context = click.get_current_context()
    for name in context.params:
        given = context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        if given and name in ("run", "task", "ask", "preferences", "beta", "new_characters", "out", *ADAPTER_FLAGS):
            flag = "RUN" if name == "run" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} cannot go with --resume, which uses the run's own settings: leave it out")


def _resume(path: str, base: str | None, data: DataPath, changes: dict[str, Any], as_json: bool) -> None:
    """Continue a fine-tuning, and report."""
    from minigpt.finetuning.resume_finetuning import read_finetuned_run_info, resume_finetuning
    from minigpt.runs.run import Run
    from minigpt.runs.run_directory import RunDirectory
    from minigpt.training.resume import has_work_left

    directory = RunDirectory(Path(path))
    if not has_work_left(directory, read_finetuned_run_info(directory), changes):
        print_finished(Run.open(path), "finetune", as_json)
        return
    show_result(resume_finetuning(path, base, data, **changes), as_json)
