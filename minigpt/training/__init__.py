"""Train a run: the loop, its callbacks, the optimizer, checkpoints and resume."""

__all__ = ["callbacks", "checkpoint", "checkpoint_store", "loop", "optimizer", "resume", "run_training", "train"]
