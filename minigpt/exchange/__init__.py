"""Import models from other programs, and export runs to them; one module for each format and direction.

Import from its modules, such as `minigpt.exchange.huggingface_import`.
"""

__all__ = ["export", "gguf_import", "huggingface_export", "huggingface_import", "lecture_import", "nanogpt_import"]
