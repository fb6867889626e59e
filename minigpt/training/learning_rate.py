"""The learning rate of each step: warmup, then the schedule."""

import math

from minigpt.config import TrainingConfig


def get_learning_rate(step: int, config: TrainingConfig) -> float:
    """Return AdamW's learning rate for a step, counted from 0.

    It rises linearly for warmup_iters steps, then falls as the schedule says, but not below min_learning_rate. After
    the schedule's end it stays.
    """
    end = (config.schedule_end or config.max_iters) - config.schedule_start
    step = max(0, min(step - config.schedule_start, end - 1))
    if step < config.warmup_iters:
        return config.learning_rate * (step + 1) / config.warmup_iters
    done = (step - config.warmup_iters) / (end - config.warmup_iters)  # from 0 to 1
    fall = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": 0.5 + 0.5 * math.cos(math.pi * done),
        "trapezoid": min(1.0, 2 * (1 - done)),
    }
    lowest = config.min_learning_rate
    return lowest + (config.learning_rate - lowest) * fall[config.schedule]
