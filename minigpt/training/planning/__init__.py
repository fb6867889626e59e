"""What a training run will take: memory and operations from its settings, time and loss from a few timed steps."""
