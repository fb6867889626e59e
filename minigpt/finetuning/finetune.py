"""Fine-tune a run: choose between a text, instructions and preferences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt.config import DataPath
from minigpt.errors import ConfigError
from minigpt.finetuning.dpo import DPOResult, train_dpo
from minigpt.finetuning.examples import has_examples
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.method import Method
from minigpt.finetuning.new_characters import NewCharacters
from minigpt.finetuning.sft import SFTResult, train_sft
from minigpt.finetuning.text_finetuning import TextResult, train_on_text
from minigpt.runs.run import Run
from minigpt.system.advice import format_setting


def finetune(
    base: Run,
    data: DataPath,
    tasks: Sequence[str],
    test_only: Sequence[str],
    preferences: str | Path | None,
    method: Method,
    lora: LoRAConfig | None,
    targets: Sequence[str] | None,
    out: str | Path | None,
    new_characters: NewCharacters | None = None,
    **settings: Any,
) -> TextResult | SFTResult | DPOResult:
    """Fine-tune a run on the one of `data`, `tasks` and `preferences` that is given.

    The arguments and errors are those of `train_on_text`, `train_sft` and `train_dpo`. `data` is a text or has
    examples: its content decides.
    """
    is_text = data is not None and not (isinstance(data, str | Path) and has_examples(data))
    if new_characters is not None and not is_text:
        raise ConfigError(f"{format_setting('new_characters', new_characters)} is for a text: leave it out")
    if preferences is not None:
        return train_dpo(base, preferences, method, lora, targets, out, **settings)
    if is_text:
        return train_on_text(base, data, method, lora, targets, out, new_characters=new_characters, **settings)
    assert data is None or isinstance(data, str | Path)
    return train_sft(base, data, tasks, test_only, method, lora, targets, out, **settings)
