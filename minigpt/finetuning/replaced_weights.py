"""Weights that an adapter replaces: whole tensors, or some rows of a table.

PEFT calls them `modules_to_save` and trainable tokens. Here they are a parametrization of PyTorch: the tensor of the
base stays frozen, and the module computes with the replacement. A head that is tied to the embedding thus reads the
replaced rows too.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minigpt.errors import ConfigError
from minigpt.model.gpt import GPT

HEAD, EMBEDDING = "lm_head", "token_embedding_table"


class Replacement(NamedTuple):
    """What replaces a tensor: a tensor of the same shape, or rows (R, ...) and their ids (R,), int64."""

    value: Tensor
    ids: Tensor | None = None


class _StoredReplacement(nn.Module):
    """A `Replacement` as a module, so that its value is a parameter of the model."""

    def __init__(self, replacement: Replacement) -> None:
        super().__init__()
        self.ids: Tensor | None
        self.register_buffer("ids", replacement.ids, persistent=False)
        self.value = nn.Parameter(replacement.value.detach().clone())

    def forward(self, original: Tensor, scale: float) -> Tensor:
        """Return the tensor with its replacement; a scale of 0.5 is halfway between both."""
        old = original if self.ids is None else original[self.ids]
        new = self.value if scale == 1 else torch.lerp(old, self.value, scale)
        return new if self.ids is None else original.index_copy(0, self.ids, new)


class ReplacedWeight(nn.Module):
    """A parametrization of a frozen tensor: the active adapter's replacement.

    Attributes:
        adapters: the replacements by the name of their adapter.
        scales: the active adapters: name to factor. `lora.use_adapters` lets at most one be active.
    """

    adapters: dict[str, _StoredReplacement]

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()  # type: ignore[assignment]
        self.scales: dict[str, float] = {}

    def forward(self, original: Tensor) -> Tensor:
        """Return the tensor that the module computes with."""
        for name, scale in self.scales.items():
            original = self.adapters[name](original, scale)
        return original


def replace_weights(model: nn.Module, replacements: Mapping[str, Replacement], name: str) -> None:
    """Add an active adapter's replacements to a model, in place. The tensors of the base are frozen.

    Args:
        model: any model.
        replacements: what replaces each tensor, by the tensor's name.
        name: the adapter's name.
    """
    for parameter, replacement in replacements.items():
        path, _, attribute = parameter.rpartition(".")
        module = model.get_submodule(path)
        if not parametrize.is_parametrized(module, attribute):
            getattr(module, attribute).requires_grad_(False)
            parametrize.register_parametrization(module, attribute, ReplacedWeight(), unsafe=True)  # no trial forward
        weight = find_replaced_weights(model)[parameter]
        weight.adapters[name] = _StoredReplacement(replacement).train(module.training)
        weight.scales[name] = 1.0


def find_replaced_weights(model: nn.Module) -> dict[str, ReplacedWeight]:
    """Return the tensors that an adapter replaces, by name."""
    middle = ".parametrizations."
    return {
        path.removesuffix(".0").replace(middle, "."): module
        for path, module in model.named_modules()
        if isinstance(module, ReplacedWeight)
    }


def require_one_replacement(model: nn.Module, scales: Mapping[str, float]) -> None:
    """Raise ConfigError where two of these adapters replace the same tensor."""
    for parameter, weight in find_replaced_weights(model).items():
        if len(weight.adapters.keys() & scales.keys()) > 1:
            raise ConfigError(f"two of the adapters replace {parameter}: use one of them")


def copy_with_replaced_weights(module: nn.Module) -> nn.Module:
    """Return an ordinary module that has the present values of a module with replaced weights.

    The parametrization itself cannot be removed: PyTorch shares the class of the module with the module's deep copies.
    """
    plain_class = type(module).__bases__[0]
    plain: nn.Module = object.__new__(plain_class)
    plain.__dict__.update(module.__dict__)
    plain._modules = {name: child for name, child in module._modules.items() if name != "parametrizations"}
    values = {name: nn.Parameter(getattr(module, name).detach().clone()) for name in module.parametrizations}  # type: ignore
    plain._parameters = {**module._parameters, **values}
    return plain


def untie_head(model: GPT) -> None:
    """Give a GPT with a tied head a head of its own, in place, which shares the embedding's frozen weights.

    The outputs and the base's fingerprint do not change. The outputs can change when an adapter replaces only the head
    or only the embedding.
    """
    rows, columns = model.config.vocab_size, model.config.n_embd
    table = get_base_parameter(model, f"{EMBEDDING}.weight")
    assert table is not None
    with torch.device("meta"):
        head = nn.Linear(columns, rows)
    head.weight, head.bias = table, nn.Parameter(table.new_zeros(rows), requires_grad=False)
    model.lm_head = head.train(model.training)
    model.config = dataclasses.replace(model.config, tied_head=False)


def is_head_untied(model: nn.Module) -> bool:
    """Return True for a GPT whose head `untie_head` has made."""
    if not isinstance(model, GPT) or model.lm_head is None:
        return False
    return get_base_parameter(model, f"{HEAD}.weight") is get_base_parameter(model, f"{EMBEDDING}.weight")


def get_base_parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    """Return a parameter of a model without its replacements; None where a layer is quantized or has adapters."""
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    if parametrize.is_parametrized(module, attribute):
        return module.get_parameter(f"parametrizations.{attribute}.original")
    return module._parameters.get(attribute)
