"""The functions of `import minigpt`: train a run, resume it, fine-tune it, and open it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from minigpt.config import CHANGEABLE, UNSETTABLE, Config, DataPath, ModelConfig, TokenizerKind, TrainingConfig
from minigpt.config_fields import drop_unset, list_settings
from minigpt.errors import ConfigError
from minigpt.finetuning.settings import FIXED

if TYPE_CHECKING:
    from minigpt.finetuning.lora_layer import LoRAConfig
    from minigpt.runs.run import Run
    from minigpt.training.callbacks import Callback


@list_settings(ModelConfig, TrainingConfig, without=UNSETTABLE)
def train(
    preset: str = "lecture",
    *,
    data: DataPath = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    callbacks: Sequence["Callback"] = (),
    **fields: Any,
) -> "Run":
    """Train a model and return its run. Progress goes to standard error.

    Args:
        preset: the settings to start from, such as "lecture" or "cpu-2min" (see `minigpt.presets.PRESETS`).
        data: a text file, several of them, or a folder made by `minigpt data prepare`. Default: input.txt in the
            current folder, else Tiny Shakespeare.
        out: the run's folder. Default: runs/<preset>. A name that is taken gets a number.
        overwrite: whether to replace the run with that name. The old run stays until the new one is finished.
        callbacks: called during the training, see `minigpt.Callback`.
        **fields: settings that differ from the preset's, such as `max_iters=500` (see `minigpt.config`; the defaults
            in the signature are those of the lecture preset). `tokenizer` may also be the path of a tokenizer's file.

    Raises:
        MinigptError: the input cannot be used, or the training failed (see `minigpt.errors`).
        KeyboardInterrupt: the training was stopped; the run is saved, and `resume` continues it.
    """
    from minigpt.training.callbacks import require_callbacks
    from minigpt.training.train import train

    require_callbacks(callbacks)
    tokenizer = fields.get("tokenizer", "char")
    if not isinstance(tokenizer, str | Path):
        raise ConfigError(f"tokenizer must be a kind or the path of a file, not a {type(tokenizer).__name__}")
    file = fields.pop("tokenizer") if tokenizer not in get_args(TokenizerKind) else None
    for name in UNSETTABLE:
        if name in fields:
            raise ConfigError(f"{name} is no setting of a new training run: leave it out")
    if "vocab_size" in fields and tokenizer not in ("bpe", "sentencepiece"):
        raise ConfigError(
            "vocab_size is only for the tokenizers bpe and sentencepiece, which are trained: leave it out"
        )
    return train(Config.from_preset(preset).override(**fields), data, out, overwrite, file, callbacks)


@list_settings(TrainingConfig, without={*TrainingConfig.names()}.difference(CHANGEABLE), has_defaults=False)
def resume(
    path: str | Path,
    *,
    data: DataPath = None,
    base: str | Path | None = None,
    restart_schedule: bool = False,
    callbacks: Sequence["Callback"] = (),
    **changes: Any,
) -> "Run":
    """Resume a training run or a fine-tuning that was stopped, and return the run.

    A finished run is returned as it is, unless `changes` make it longer.

    Args:
        path: the run's folder.
        data: where its text is now, if it has moved.
        base: where the base of a fine-tuned run is now, if it has moved.
        restart_schedule: whether the steps that follow get the whole schedule of the learning rate again.
        callbacks: called during the training, see `minigpt.Callback`.
        **changes: new values of settings; more `max_iters` make the run longer. None keeps a value.

    Raises:
        MinigptError: the run cannot resume, or the training failed.
    """
    from minigpt.finetuning.resume_finetuning import resume_finetuning
    from minigpt.runs.run import Run
    from minigpt.runs.run_directory import RunDirectory
    from minigpt.training.callbacks import require_callbacks
    from minigpt.training.resume import has_work_left, resume

    require_callbacks(callbacks)
    directory, changes = RunDirectory(Path(path)), drop_unset(changes)
    if not directory.finetuning.exists():
        if base is not None:
            raise ConfigError(f"base is for fine-tuned runs, and {str(path)!r} is none: leave it out")
        return resume(path, data, restart_schedule, callbacks=callbacks, **changes)
    if restart_schedule:
        raise ConfigError("restart_schedule is not for fine-tuned runs: leave it out")
    if not has_work_left(directory, directory.read_info(), changes):
        return Run.open(path)
    return resume_finetuning(path, base, data, callbacks, **changes).run


@list_settings(TrainingConfig, without=[*FIXED, *UNSETTABLE], has_defaults=False)
def finetune(
    run: "Run | str | Path",
    *,
    data: DataPath = None,
    tasks: Sequence[str] = (),
    test_only: Sequence[str] = (),
    preferences: str | Path | None = None,
    beta: float | None = None,
    method: Literal["full", "lora", "qlora"] = "full",
    lora: "LoRAConfig | None" = None,
    targets: Sequence[str] | None = None,
    out: str | Path | None = None,
    new_characters: Literal["add", "replace"] | None = None,
    callbacks: Sequence["Callback"] = (),
    **settings: Any,
) -> "Run":
    """Fine-tune a copy of a run on a text, instructions or preferences, and return the new run.

    The functions `train_on_text`, `train_sft` and `train_dpo` in `minigpt.finetuning` also return what was learned and
    forgotten.

    Args:
        run: the run to start from, or its folder; it stays as it is.
        data: a text, prepared data, or a file of JSON with instructions and answers.
        tasks: built-in tasks, such as ["reverse", "upper"].
        test_only: pairs of tasks that are tested and never learned, such as ["reverse+upper"].
        preferences: a file of JSON with prompt, chosen and rejected answer, for DPO.
        beta: how strongly DPO keeps the model near its base.
        method: "full" trains all weights; "lora" trains adapters; "qlora" the same with the other weights in 4 bits.
        lora: the size and scaling of the adapters.
        targets: layers that get an adapter, such as ["qkv"]. Default: all layers of the blocks.
        out: the new run's folder. A name that is taken gets a number.
        new_characters: what to do with characters of a text that are not in the run's vocabulary: "add" gives each a
            token, "replace" makes one token of all.
        callbacks: called during the training, see `minigpt.Callback`.
        **settings: settings of the training. None, the default, is the base's value, except for the steps and the
            learning rate (docs/finetuning.md, docs/instructions.md).

    Raises:
        MinigptError: the input cannot be used, or the training failed.
        KeyboardInterrupt: the training was stopped; the run is saved, and `resume` continues it.
    """
    from minigpt.finetuning.finetune import finetune
    from minigpt.runs.run import Run
    from minigpt.training.callbacks import require_callbacks

    require_callbacks(callbacks)
    if isinstance(tasks, str) or isinstance(test_only, str):
        raise ConfigError("tasks and test_only must be lists of names, such as ['reverse', 'upper']")
    if sum((data is not None, bool(tasks), preferences is not None)) != 1:
        raise ConfigError("give exactly one of data, tasks and preferences")
    if beta is not None and preferences is None:
        raise ConfigError("beta needs preferences: name a file of pairs, or leave beta out")
    if method == "full" and (lora is not None or targets is not None):
        raise ConfigError("lora and targets are for adapters: add method='lora', or leave them out")
    settings = drop_unset(settings)
    base = run if isinstance(run, Run) else Run.open(run, device=settings.get("device", "auto"))
    more = drop_unset({"beta": beta, "new_characters": new_characters, **settings}) | {"callbacks": callbacks}
    return finetune(base, data, tasks, test_only, preferences, method, lora, targets, out, **more).run


def load(path: str | Path | None = None, *, weights: Literal["last", "best"] = "last", device: str = "auto") -> "Run":
    """Open a run.

    Args:
        path: the run's folder. Default: the newest run in runs/.
        weights: the last weights, or those of the best evaluation.
        device: where to compute: "auto" takes a GPU if there is one; or "cpu", "cuda", "mps".

    Raises:
        RunError: the run is missing or damaged.
    """
    from minigpt.runs.run import Run
    from minigpt.runs.run_directory import find_newest_run

    return Run.open(find_newest_run() if path is None else path, weights, device)
