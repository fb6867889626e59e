"""The names that PEFT gives to the layers and the tensors of our models.

The layers of our GPT have the names of transformers' GPT-2. Those of other models keep their own.
"""

import dataclasses
import re

from torch import nn

from minigpt.finetuning.replaced_weights import find_replaced_weights
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import BLOCK_NAMES, map_gpt2_names

PREFIX = "base_model.model."
PARTS = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}  # our name and PEFT's
TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"  # follows the name of a table


def convert_to_peft_name(model: nn.Module, path: str) -> str:
    """Return what PEFT calls the layer at that path."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", path)
    if isinstance(model, GPT) and found and found[2] in BLOCK_NAMES:
        return f"{PREFIX}transformer.h.{found[1]}.{BLOCK_NAMES[found[2]]}"
    return PREFIX + path


def map_peft_names(model: nn.Module) -> dict[str, str]:
    """Return a mapping from the names of the base's parameters to PEFT's. A GPT's head always has a name."""
    if isinstance(model, GPT):
        names = map_gpt2_names(dataclasses.replace(model.config, tied_head=False))
        return {ours: PREFIX + ("" if ours.startswith("lm_head") else "transformer.") + n for ours, n in names.items()}
    own = {convert_to_base_name(name) for name, _ in model.named_parameters() if ".adapters." not in name}
    return {name: PREFIX + name for name in own | find_replaced_weights(model).keys()}


def convert_to_base_name(name: str) -> str:
    """Return what the base without adapters calls a tensor."""
    return re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name).replace(".base.", ".")
