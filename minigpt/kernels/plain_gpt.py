"""Whether a GPT is what model/gpt.py says and nothing else, so that compiled loops compute the same function."""

import torch
from torch import nn

from minigpt.kernels.onednn_linear import OneDNNFunctionalLinear, OneDNNLinear
from minigpt.model.gpt import GPT, Block, CausalSelfAttention, FeedForward, FunctionalLinear, ScaledDotProductAttention
from minigpt.model.quantization import Linear8bit

LAYER_NORM_EPSILON = 1e-5
MODELS = {GPT}  # a subclass may compute something else; training_loops.py adds its own
LINEAR = {nn.Linear, OneDNNLinear}
KNOWN = {Block, CausalSelfAttention, ScaledDotProductAttention, FeedForward, FunctionalLinear, OneDNNFunctionalLinear}
KNOWN |= {nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.Dropout} | LINEAR


def is_plain_gpt(model: GPT, int8: bool = False, adapters: bool = False) -> bool:
    """Return True for a GPT in float32 on a CPU, without hooks or other layers than those of model/gpt.py.

    Args:
        model: the model.
        int8: whether its linear layers may all be `Linear8bit`.
        adapters: whether linear layers may have adapters, that is, the method `compute_effective_weight`.
    """
    modules: list[nn.Module] = [model]
    kinds = set()
    for module in modules:  # grows while it is read; faster than model.modules()
        if adapters and has_adapters(module):
            continue
        kinds.add(type(module))
        modules.extend(part for part in module._modules.values() if part is not None)
    weight = model.ln_f.weight
    return (
        type(model) in MODELS
        and kinds <= (KNOWN | MODELS | {Linear8bit} if int8 else KNOWN | MODELS)
        and not (Linear8bit in kinds and kinds & LINEAR)
        and not any(has_hooks(module) or "forward" in vars(module) for module in modules)
        and all(norm.eps == LAYER_NORM_EPSILON for norm in modules if isinstance(norm, nn.LayerNorm))
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
    )


def has_adapters(layer: nn.Module) -> bool:
    """Return True if a layer adds the updates of adapters to its matrix."""
    return hasattr(type(layer), "compute_effective_weight")


def has_hooks(module: nn.Module) -> bool:
    """Return True if a module has hooks, which a kernel would skip."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
