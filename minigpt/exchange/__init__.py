"""Models to and from other libraries; one module for each format."""

__all__ = ["huggingface"]
