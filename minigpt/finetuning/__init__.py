"""Fine-tuning: on a text, on instructions (SFT) and on preferences (DPO), with all weights or with LoRA adapters."""

__all__ = ["accuracy", "adapter_files", "dpo", "finetune", "lora", "quantize", "sft", "tasks"]
