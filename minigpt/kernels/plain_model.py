"""Whether a model is what its model file says and nothing else, so that compiled loops compute the same function."""

from typing import Any

import torch
from torch import Tensor, nn

from minigpt.kernels.causal_attention import StoredCausalAttention
from minigpt.kernels.elementwise import ByteDropout, FastRMSNorm, FastRotary, FastSquaredReLU, FastTokenShift
from minigpt.kernels.onednn_linear import OneDNNFunctionalLinear, OneDNNLinear
from minigpt.model import gpt, modern
from minigpt.model.quantization import Linear4bit, Linear8bit

LAYER_NORM_EPSILON = 1e-5
MODELS = {gpt.GPT, modern.Modern}  # a subclass may compute something else; training_loops.py adds its own
COMMON: tuple[type, ...] = (nn.Embedding, nn.ModuleList, nn.Dropout, nn.Linear, OneDNNLinear)
COMMON += (gpt.ScaledDotProductAttention, StoredCausalAttention, gpt.FunctionalLinear, OneDNNFunctionalLinear)
GPT_MODULES = {gpt.Block, gpt.CausalSelfAttention, gpt.FeedForward, nn.LayerNorm, *COMMON}
MODERN_MODULES = {modern.Block, modern.CausalSelfAttention, modern.FeedForward, ByteDropout, *COMMON}
MODERN_MODULES |= {modern.RMSNorm, modern.Rotary, modern.SquaredReLU, modern.TokenShift}
MODERN_MODULES |= {FastRMSNorm, FastRotary, FastSquaredReLU, FastTokenShift}
QUANTIZED = {Linear4bit, Linear8bit}


def is_plain_model(model: Any, quantized: bool = False) -> bool:
    """Return True for a GPT or a Modern in float32 on a CPU, without hooks or other layers than those of its file.

    Its linear layers may have adapters.

    Args:
        model: the model.
        quantized: whether its linear layers may be quantized.
    """
    known = (GPT_MODULES if isinstance(model, gpt.GPT) else MODERN_MODULES) | (QUANTIZED if quantized else set())
    modules: list[nn.Module] = [model]
    for module in modules:  # grows while it is read; faster than model.modules()
        kind = type(module)
        if has_hooks(module) or "forward" in vars(module):
            return False
        if kind in known or (module is model and kind in MODELS):
            modules.extend(part for part in module._modules.values() if part is not None)
        elif not has_adapters(module):
            return False
        if kind is nn.LayerNorm and module.eps != LAYER_NORM_EPSILON:
            return False
    weight = model.token_embedding_table.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def has_adapters(layer: nn.Module) -> bool:
    """Return True if a layer adds the updates of adapters to its matrix."""
    return hasattr(type(layer), "compute_effective_weight")


def has_hooks(module: nn.Module) -> bool:
    """Return True if a module has hooks, which a kernel would skip."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def list_linear_layers(block: Any) -> list[Any]:
    """Return the linear layers of a block in the order of its computation."""
    return [block.attention.qkv, block.attention.proj, block.ffwd.up, block.ffwd.down]


def get_weight(layer: Any) -> Any:
    """Return a layer's matrix (O, I) in float32, with its adapters; None if an adapter drops some of its inputs."""
    weight = layer._parameters.get("weight")  # the attribute takes ten times as long
    if weight is not None:
        return weight
    return layer.compute_effective_weight() if has_adapters(layer) else layer.weight


def get_bias(layer: Any) -> Tensor | None:
    """Return a layer's bias (O,), or None if it has none."""
    if "bias" in layer._parameters:
        return layer._parameters["bias"]
    return layer.base.bias if has_adapters(layer) else layer.bias
