"""From Python, a command's function takes the settings that the command line takes, and refuses the others."""

from pathlib import Path
from typing import Any

import pytest
from click import Option

import minigpt
from minigpt.cli.finetune import finetune as finetune_command
from minigpt.config import ModelConfig, TrainingConfig
from minigpt.errors import ConfigError
from minigpt.finetuning.settings import require_settings
from minigpt.finetuning.sft import train_sft
from minigpt.finetuning.text_finetuning import train_on_text
from minigpt.runs.run import Run

ALL = [*ModelConfig.names(), *TrainingConfig.names()]
FLAGS = {parameter.name for parameter in finetune_command.params if isinstance(parameter, Option)}


@pytest.mark.parametrize("name", ALL)
def test_a_fine_tuning_takes_a_setting_exactly_if_the_command_has_its_flag(name: str) -> None:
    if name in FLAGS:
        require_settings([name])
    else:
        with pytest.raises(ConfigError, match=f"{name} is the base run's, and a fine-tuning cannot change it"):
            require_settings([name])


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"n_layer": 2}, {"max_minutes": 1.0}])
def test_a_refused_setting_leaves_no_run(
    settings: dict[str, Any], trained: Run, text_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        train_on_text(trained, text_file, out=tmp_path / "run", **settings)
    with pytest.raises(ConfigError):
        train_sft(trained, tasks=["upper"], out=tmp_path / "run", **settings)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["quantization", "schedule_start", "schedule_end"])
def test_a_new_run_takes_no_setting_that_other_commands_make(name: str, text_file: Path) -> None:
    with pytest.raises(ConfigError, match=f"{name} is no setting of a new training run: leave it out"):
        minigpt.train(data=text_file, **{name: 5})
