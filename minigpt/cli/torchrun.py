"""Which of torchrun's processes this is, said by the variables that it sets, before anything heavy is imported."""

import os


def started_by_torchrun() -> bool:
    """Whether torchrun started this process, alone or beside others."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ["RANK"]) if started_by_torchrun() else 0
