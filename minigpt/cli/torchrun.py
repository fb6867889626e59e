"""Read rank and world size from torchrun's environment variables."""

import os


def is_started_by_torchrun() -> bool:
    """Return True if torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def get_world_size() -> int:
    """Return the number of processes."""
    return int(os.environ["WORLD_SIZE"]) if is_started_by_torchrun() else 1


def get_rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if is_started_by_torchrun() else 0
