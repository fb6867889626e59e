"""Which modules of a model a kernel can replace: a change of class, and nothing else.

A fast class is a subclass of the plain one with the same attributes. It falls back to the plain forward where its
kernel cannot be used, so a module may be swapped before adapters, hooks or autocast come into play.
"""

from torch import nn

from minigpt.config import Config
from minigpt.kernels.causal_attention import StoredCausalAttention
from minigpt.kernels.elementwise import ByteDropout, FastRMSNorm, FastRotary, FastSquaredReLU, FastTokenShift
from minigpt.kernels.onednn_linear import HAS_AVX512, HAS_ONEDNN, OneDNNFunctionalLinear, OneDNNLinear
from minigpt.kernels.plain_model import has_hooks, is_plain_model
from minigpt.kernels.training_loops import CompiledGPT, can_train_with_loops
from minigpt.model.gpt import GPT, FunctionalLinear, ScaledDotProductAttention
from minigpt.model.language_model import get_device
from minigpt.model.modern import Modern, RMSNorm, Rotary, SquaredReLU, TokenShift

ONEDNN: dict[type, type] = {nn.Linear: OneDNNLinear, FunctionalLinear: OneDNNFunctionalLinear} if HAS_ONEDNN else {}
ELEMENTWISE: dict[type, type] = {
    RMSNorm: FastRMSNorm,
    Rotary: FastRotary,
    TokenShift: FastTokenShift,
    SquaredReLU: FastSquaredReLU,
    nn.Dropout: ByteDropout,
}
ATTENTION: dict[type, type] = {ScaledDotProductAttention: StoredCausalAttention}
LOOPS: dict[type, type] = {GPT: CompiledGPT}
PLAIN = {fast: plain for table in (ONEDNN, ELEMENTWISE, ATTENTION, LOOPS) for plain, fast in table.items()}


def swap_modules(model: nn.Module, config: Config, has_avx512: bool = HAS_AVX512) -> list[str]:
    """Swap a model's modules, in place.

    Args:
        model: any model.
        config: the run's configuration.
        has_avx512: whether PyTorch computes with AVX-512. Without it, oneDNN multiplies more slowly than MKL.

    Returns:
        The names of the kernels that the model has now, sorted.
    """
    names = set()
    for name, table in _select_tables(model, config, has_avx512).items():
        for module in model.modules():
            fast = table.get(type(module))
            if fast is not None and not has_hooks(module) and not any(p.is_meta for p in module.parameters()):
                module.__class__ = fast
        if any(type(module) in table.values() for module in model.modules()):
            names.add(name)
    return sorted(names)


def restore_modules(model: nn.Module) -> None:
    """Undo `swap_modules`, in place."""
    for module in model.modules():
        if type(module) in PLAIN:
            module.__class__ = PLAIN[type(module)]


def _select_tables(model: nn.Module, config: Config, has_avx512: bool) -> dict[str, dict[type, type]]:
    """Return the kernels for this kind of model, by name; none on a GPU and for the models to be read."""
    device = get_device(model).type
    if device != "cpu":
        return {}
    onednn = ONEDNN if has_avx512 else {}
    if isinstance(model, Modern):
        return {"onednn_linear": onednn, "elementwise": ELEMENTWISE, "causal_attention": ATTENTION}
    if isinstance(model, GPT):
        has_loops = can_train_with_loops(config, device) and is_plain_model(model)
        return {"onednn_linear": onednn, "training_loops": LOOPS if has_loops else {}}
    return {}
