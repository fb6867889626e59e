"""A run on disk, and what can be done with it: generate text, chat, measure a text, and make a quantized copy.

Import from its modules, such as `minigpt.runs.run`.
"""

__all__ = ["chat", "exact_loss", "quantize_run", "run", "run_directory", "run_info", "run_listing"]
