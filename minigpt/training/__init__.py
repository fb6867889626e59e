"""Train a run: the loop, its callbacks, the optimizer, checkpoints and resume.

Import from its modules, such as `minigpt.training.loop`.
"""

__all__ = [
    "callbacks",
    "checkpoint_directory",
    "checkpoint_format",
    "display",
    "evaluation",
    "loop",
    "optimizer",
    "planning",
    "resume",
    "setup",
    "train",
    "train_run",
    "training_state",
]
