"""The machine that a training run is planned for: how many GPUs, and what each can do."""

from dataclasses import dataclass

from minigpt.config import Config
from minigpt.config_fields import ValidatedSettings, setting

# FLOP/s of dense matrix products on an H100 SXM5, from NVIDIA's data sheet; fp32 products run in TF32
H100 = {"fp32": 495e12, "bf16": 989e12, "fp16": 989e12}


@dataclass(frozen=True)
class Machine(ValidatedSettings):
    """A number of equal GPUs.

    Raises:
        ConfigError: a value is not allowed.
    """

    gpus: int = setting(1, "how many GPUs share each batch", at_least=1)
    flops: float | None = setting(None, "FLOP/s of one GPU [an H100's: 495e12 in fp32, 989e12 in 16 bits]", at_least=1)
    utilization: float = setting(0.4, "share of those FLOP/s that the training reaches", at_least=0.01, at_most=1)
    memory: float | None = setting(None, "memory of one GPU in GB: also says what fits", above=0)

    def compute_flops(self, config: Config) -> float:
        """Return the FLOP/s that all GPUs together reach in this training."""
        return self.gpus * self.utilization * (self.flops or H100[config.training.precision])
