"""PEFT's adapter_config.json: which layers an adapter has, and its rank and alpha, which may differ by layer."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.errors import ConfigError, ExchangeError
from minigpt.finetuning.lora import LoRAConfig
from minigpt.finetuning.target_layers import is_named
from minigpt.system.files import read_text

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 2**20
SUPPORTED: dict[str, tuple[Any, ...]] = {  # PEFT has other values for these settings, and we do not
    "bias": ("none",),
    "modules_to_save": (None, []),
    "lora_bias": (None, False),
    "layer_replication": (None,),
    "use_qalora": (None, False),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),  # the others change the base
    "alora_invocation_tokens": (None,),
}


class AdapterConfig(NamedTuple):
    """The settings of adapter_config.json: those of most layers, and the rank and alpha of others by name."""

    default: LoRAConfig
    ranks: dict[str, Any]
    alphas: dict[str, Any]

    def for_layer(self, name: str) -> LoRAConfig:
        """Return the settings of the layer that PEFT calls so. Raise ConfigError for an impossible value."""
        rank = next((value for key, value in self.ranks.items() if is_named(name, key)), self.default.rank)
        alpha = next((value for key, value in self.alphas.items() if is_named(name, key)), self.default.alpha)
        return dataclasses.replace(self.default, rank=rank, alpha=alpha)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read adapter_config.json. Raise ExchangeError for a setting that we do not support."""
    path = folder / CONFIG
    if not path.is_file():
        raise ExchangeError(f"{str(folder)!r} is no adapter: it has no {CONFIG}")
    try:
        content: Any = json.loads(read_text(path, MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{str(path)!r} is damaged: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("peft_type") != "LORA":
        raise ExchangeError(f"{str(path)!r} is not of a LoRA adapter, and only those can be read")
    for name, values in SUPPORTED.items():
        if content.get(name, values[0]) not in values:
            raise ExchangeError(f"{str(path)!r} has {name} {content[name]!r}, and only {values[0]!r} can be read")
    alpha, dropout = content.get("lora_alpha", 8), content.get("lora_dropout", 0.0)
    rslora, dora = content.get("use_rslora", False), content.get("use_dora", False)
    are_numbers = all(isinstance(n, int | float) and abs(n) < 1e30 for n in (alpha, dropout))
    if not are_numbers or not isinstance(rslora, bool) or not isinstance(dora, bool):
        names = "lora_alpha, lora_dropout, use_rslora or use_dora"
        raise ExchangeError(f"{str(path)!r} is damaged: {names} has an impossible value")
    patterns = [content.get(name) or {} for name in ("rank_pattern", "alpha_pattern")]
    for pattern in patterns:
        if not isinstance(pattern, dict) or not all(re.fullmatch(r"[\w.]+", key) for key in pattern):
            raise ExchangeError(f"{str(path)!r} has the pattern {pattern!r:.80}, and only names of layers can be read")
        if not all(isinstance(value, int | float) and abs(value) < 1e30 for value in pattern.values()):
            raise ExchangeError(f"{str(path)!r} is damaged: {pattern!r:.80} has an impossible value")
    try:
        settings = AdapterConfig(LoRAConfig(content.get("r", 8), float(alpha), float(dropout), rslora, dora), *patterns)
        for name in [*settings.ranks, *settings.alphas]:
            settings.for_layer(name)
        return settings
    except ConfigError as error:
        raise ExchangeError(f"{str(path)!r} is damaged: {error}") from None
