"""Several processes: DDP, FSDP, torchrun, sharded checkpoints."""

__all__ = ["launch", "parallelism", "process_group", "sharded_checkpoint"]
