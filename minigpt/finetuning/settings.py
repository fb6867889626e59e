"""Which settings of a training run a fine-tuning takes."""

from collections.abc import Iterable

from minigpt.config import UNSETTABLE, ModelConfig, TrainingConfig
from minigpt.config_fields import require_known
from minigpt.errors import ConfigError

# Settings that a fine-tuning does not take: they are the base run's, or do not apply.
FIXED = ("tokenizer", "order", "train_fraction", "parallel", "max_minutes", "save_minutes", "on_spike")


def require_settings(names: Iterable[str]) -> None:
    """Raise ConfigError for a setting that a fine-tuning does not take, from Python as on the command line."""
    for name in names:
        require_known([name], ModelConfig.names() + TrainingConfig.names())
        if name in (*FIXED, *UNSETTABLE) or name in ModelConfig.names():
            raise ConfigError(f"{name} is the base run's, and a fine-tuning cannot change it: leave it out")
