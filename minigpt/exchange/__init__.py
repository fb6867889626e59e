"""Import models from other programs, and export runs to them; one module for each format and direction."""

__all__ = ["huggingface"]
