"""Resume a fine-tuning from its newest checkpoint: on a text, on instructions or on preferences."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt.config import DataPath, TrainingConfig
from minigpt.data.json_rows import JSON_SUFFIXES, get_suffix, read_first_row
from minigpt.data.text_format import TextFormat
from minigpt.errors import DataError, RunError
from minigpt.finetuning.adapter_files import compute_base_fingerprint
from minigpt.finetuning.dpo import DPOResult, train_dpo
from minigpt.finetuning.dpo_loss import DEFAULT_BETA
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.run_finetuning import Resumption
from minigpt.finetuning.sft import SFTResult, train_sft
from minigpt.finetuning.text_finetuning import TextResult, train_on_text
from minigpt.runs.recorded_data import find_training_data, require_recorded_files
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import FinetuningInfo, RunInfo
from minigpt.system.advice import format_setting
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.display import Display
from minigpt.training.resume import change_config, has_work_left

logger = logging.getLogger(__name__)


@use_pytorch_defaults()
def resume_finetuning(
    path: str | Path,
    base: str | Path | None = None,
    data: DataPath = None,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> TextResult | SFTResult | DPOResult:
    """Resume a fine-tuned run, and return the result of `train_on_text`, `train_sft` or `train_dpo`, which started it.

    With the same settings, on a CPU in float32, the weights are bit for bit those of a run without the stop.

    Args:
        path: the run's directory.
        base: where the base run is now, if it has moved.
        data: where the text, the examples or the pairs are now, if they have moved. For a run that learns examples, a
            file that is not JSON is the base's own text.
        callbacks: called during the training, after the built-in callbacks.
        changes: new values of the settings in `config.CHANGEABLE`.

    Raises:
        RunError: the run was not fine-tuned, is finished or has no checkpoint; or its base is missing or has changed.
        ConfigError: a change would make it another run.
        DataError: the data are missing or have changed.
        MinigptError: as `minigpt.train` does.
    """
    directory = RunDirectory(Path(path))
    info = read_finetuned_run_info(directory)
    if not has_work_left(directory, info, changes):
        raise RunError(f"{str(path)!r} is finished after {info.step:,} steps: choose a larger max_iters")
    with directory.lock():
        finetuning = directory.read_finetuning_info()
        before = directory.read_config()
        with Display(before.training) as display:
            checkpoint = CheckpointDirectory(directory.path).open_newest(display.say)
        config = change_config(before, checkpoint, info.status == "finished", False, changes)
        base_run = _open_base(info, finetuning, base, config.training)
        examples = data if isinstance(data, str | Path) and _has_rows(data) else None
        own_text = data if examples is None else None
        examples = examples or _find_examples(directory, finetuning)
        resumption = Resumption(directory, info, finetuning, config, checkpoint, own_text)
        return _continue(base_run, resumption, examples, data, callbacks)


def _has_rows(data: str | Path) -> bool:
    """Return True for a file of examples or pairs, False for a text."""
    return get_suffix(data) in JSON_SUFFIXES or isinstance(read_first_row(data), dict)


def read_finetuned_run_info(directory: RunDirectory) -> RunInfo:
    """Read the run.json of a fine-tuned run. Raise RunError for any other directory."""
    directory.require_exists()
    CheckpointDirectory(directory.path).require_no_links()
    info = directory.read_info()
    if not directory.finetuning.exists():
        raise RunError(f"{str(directory.path)!r} was not fine-tuned, so there is no fine-tuning to resume")
    return info


def _find_examples(directory: RunDirectory, finetuning: FinetuningInfo) -> str | None:
    """Return the recorded file of examples or pairs, if there is one. Raise FileError or DataError if it is another."""
    if finetuning.data is None:
        return None
    require_recorded_files([finetuning.data], finetuning.data_bytes, directory.path)
    return finetuning.data


def _open_base(info: RunInfo, finetuning: FinetuningInfo, base: str | Path | None, training: TrainingConfig) -> Run:
    """Open the base. Raise RunError if it is missing or another one."""
    place = Path(base or info.base or "")
    where = f"name it with {format_setting('base')}"
    if base is None:
        logger.info("opening %r, which the fine-tuned run names as its base", str(place))
    if not (place / "run.json").exists():
        raise RunError(f"the base run {str(place)!r} is not there: {where}")
    run = Run.open(place, device=training.device)
    if compute_base_fingerprint(run.model) != finetuning.base_sha256:
        raise RunError(f"{str(place)!r} is not the base that was fine-tuned, its weights differ: {where}")
    return run


def _continue(
    base: Run,
    resumption: Resumption,
    examples: str | Path | None,
    data: DataPath,
    callbacks: Sequence[Callback],
) -> TextResult | SFTResult | DPOResult:
    """Call the function that began the run."""
    how = resumption.finetuning_info
    lora = LoRAConfig(how.rank, how.alpha, how.dropout, how.rslora, how.dora)
    targets = None if how.targets is None else how.targets.split(",")
    common: dict[str, Any] = {"lora": lora, "targets": targets, "resumption": resumption, "callbacks": callbacks}
    if how.kind == "text":
        text_format = TextFormat.from_settings(resumption.config.training)
        corpus = find_training_data(resumption.directory.path, resumption.run_info, data, text_format)
        return train_on_text(base, corpus, how.method, new_characters=how.new_characters, **common)
    if how.kind == "sft":
        tasks, test_only = ((names or "").split(",") if names else [] for names in (how.tasks, how.test_only))
        return train_sft(base, examples, tasks, test_only, how.method, **common)
    if examples is None:
        raise DataError(f"the pairs of the run are not known: name them with {format_setting('data')}")
    beta = DEFAULT_BETA if how.beta is None else how.beta
    return train_dpo(base, examples, how.method, beta=beta, **common)
