"""What a training is planned for: so many GPUs, and what each can do."""

from dataclasses import dataclass

from minigpt.config import Config
from minigpt.config_fields import ValidatedSettings, setting

H100 = {"fp32": 495e12, "bf16": 989e12, "fp16": 989e12}  # dense, of the SXM5; NVIDIA's data sheet. fp32 is TF32 there


@dataclass(frozen=True)
class Machine(ValidatedSettings):
    """So many GPUs alike. Raises ConfigError for a value that cannot be."""

    gpus: int = setting(1, "how many GPUs share each batch", at_least=1)
    flops: float | None = setting(None, "FLOP/s of one [an H100's: 495e12 in fp32, 989e12 in 16 bits]", at_least=1)
    utilisation: float = setting(0.4, "share of those FLOP/s that the training reaches", at_least=0.01, at_most=1)
    memory: float | None = setting(None, "GB of one, to be told what fits", above=0)

    def reached(self, config: Config) -> float:
        """FLOP/s that all of them make together."""
        return self.gpus * self.utilisation * (self.flops or H100[config.training.precision])
