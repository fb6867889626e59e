"""A run on disk, and what can be done with it: generate text, chat, and measure a text."""

__all__ = ["chat", "evaluation", "record", "run", "run_directory"]
