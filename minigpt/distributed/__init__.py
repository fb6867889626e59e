"""Several processes: DDP, FSDP, torchrun, sharded checkpoints."""
