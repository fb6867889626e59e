"""Fine-tuning: on a text, on instructions (SFT) and on preferences (DPO), with all weights or with LoRA adapters.

Import from its modules, such as `minigpt.finetuning.lora`.
"""

__all__ = [
    "accuracy",
    "adapter_config",
    "adapter_files",
    "dpo",
    "dpo_loss",
    "examples",
    "finetune",
    "lora",
    "lora_layer",
    "method",
    "resume_finetuning",
    "run_finetuning",
    "sft",
    "tasks",
    "text_finetuning",
    "vocabulary_resize",
]
