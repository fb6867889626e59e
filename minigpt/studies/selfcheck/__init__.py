"""Check on a device that a model computes what it computes on the CPU: `minigpt selfcheck`."""

__all__ = ["checks", "equalities"]
