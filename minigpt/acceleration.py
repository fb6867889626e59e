"""The only door to minigpt/kernels: hand-written speed that can be switched off.

Every kernel computes what a model file computes, to within float32 rounding. With MINIGPT_KERNELS=off in the
environment, or without the folder minigpt/kernels, the functions below change nothing.
"""

import importlib.util
import os

from torch import nn

from minigpt.config import Config, SamplingConfig


def has_kernels() -> bool:
    """Return whether the kernels are installed and not switched off."""
    return os.environ.get("MINIGPT_KERNELS") != "off" and importlib.util.find_spec("minigpt.kernels") is not None


def accelerate(model: nn.Module, config: Config) -> tuple[str, ...]:
    """Swap modules of a model for faster ones that compute the same, in place.

    Parameters, their names and the model's class stay. Modules with hooks, adapters, quantized weights or no values
    (meta) are left alone. To accelerate a model twice is the same as once.

    Args:
        model: any model, on the device where it will run.
        config: the run's configuration; precision and compilation decide which kernels can be used.

    Returns:
        The names of the kernels that the model uses now, sorted.
    """
    if not has_kernels():
        return ()
    from minigpt.kernels import gpt_block

    device = next(model.parameters()).device
    if gpt_block.suits(model, config, device):
        gpt_block.write_out_blocks(model)
        return ("gpt_block",)
    return ()


def restore(model: nn.Module) -> None:
    """Undo `accelerate`, in place."""
    for module in model.modules():
        vars(module).pop("forward", None)


def can_fuse_blocks(config: Config, device: str) -> bool:
    """Return whether a training with this configuration uses the GPT block with the hand-written backward.

    Args:
        config: the run's configuration.
        device: the kind of device, such as "cpu" or "cuda".
    """
    if not has_kernels():
        return False
    from minigpt.kernels import gpt_block

    return gpt_block.settings_suit(config, device)


def describe_decoder(model: nn.Module, tokens: int = SamplingConfig.max_new_tokens) -> str:
    """Return in a few words how a text of `tokens` tokens will be generated, for a run's record."""
    if not has_kernels():
        return "PyTorch"
    from minigpt.generation import backend_selection

    return backend_selection.described(model, tokens)
