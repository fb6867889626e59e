"""The models: tensors in, tensors out."""

from torch import nn

from minigpt.config import ModelConfig
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel

LanguageModel = BigramLanguageModel | GPTLanguageModel


def build(config: ModelConfig) -> LanguageModel:
    """A new model of the config's architecture, its weights drawn from torch's global generator."""
    return BigramLanguageModel(config) if config.architecture == "bigram" else GPTLanguageModel(config)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(p.numel() for p in model.parameters())
