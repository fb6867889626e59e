"""Start a fine-tuning of any kind: on a text, on instructions or on preferences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt.finetuning.dpo import DPOResult, train_dpo
from minigpt.finetuning.examples import has_examples
from minigpt.finetuning.finetune import FinetuningResult, finetune
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.run_finetuning import Method
from minigpt.finetuning.sft import SFTResult, train_sft
from minigpt.runs.run import Run


def start_finetuning(
    base: Run,
    data: str | Path | None,
    tasks: Sequence[str],
    test_only: Sequence[str],
    preferences: str | Path | None,
    method: Method,
    lora: LoRAConfig | None,
    targets: Sequence[str] | None,
    out: str | Path | None,
    **settings: Any,
) -> FinetuningResult | SFTResult | DPOResult:
    """Fine-tune a run on the one of `data`, `tasks` and `preferences` that is given.

    The arguments and errors are those of `finetune`, `train_sft` and `train_dpo`. `data` is a text or has examples:
    its content decides.
    """
    if preferences is not None:
        return train_dpo(base, preferences, method, lora, targets, out, **settings)
    if data is None or has_examples(data):
        return train_sft(base, data, tasks, test_only, method, lora, targets, out, **settings)
    return finetune(base, data, method, lora, targets, out, **settings)
