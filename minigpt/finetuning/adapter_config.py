"""PEFT's adapter_config.json: rank and alpha, which may differ by layer, and the weights that an adapter replaces."""

import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.errors import ConfigError, ExchangeError
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.target_layers import is_named
from minigpt.system.json_files import read_foreign_json

CONFIG = "adapter_config.json"
INPUT_TABLE = "wte"  # the table of trainable tokens that are a list
MAX_CONFIG_BYTES = 2**20
SUPPORTED: dict[str, tuple[Any, ...]] = {  # the values that can be read; PEFT has more
    "bias": ("none",),
    "lora_bias": (None, False),
    "layer_replication": (None,),
    "use_qalora": (None, False),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),  # the others change the base
    "alora_invocation_tokens": (None,),
}


class AdapterConfig(NamedTuple):
    """The settings of adapter_config.json.

    Attributes:
        default: the settings of most layers.
        ranks: the rank of other layers, by name.
        alphas: the alpha of other layers, by name.
        modules: the names of modules that the adapter replaces.
        tokens: the ids of rows that the adapter replaces, by the name of their table.
    """

    default: LoRAConfig
    ranks: dict[str, Any]
    alphas: dict[str, Any]
    modules: list[str]
    tokens: dict[str, list[int]]

    def get_layer_config(self, name: str) -> LoRAConfig:
        """Return the settings of the layer that PEFT calls so. Raise ConfigError for an impossible value."""
        rank = next((value for key, value in self.ranks.items() if is_named(name, key)), self.default.rank)
        alpha = next((value for key, value in self.alphas.items() if is_named(name, key)), self.default.alpha)
        return dataclasses.replace(self.default, rank=rank, alpha=alpha)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read adapter_config.json. Raise ExchangeError for a setting that we do not support."""
    path = folder / CONFIG
    if not path.is_file():
        raise ExchangeError(f"{str(folder)!r} is no adapter: it has no {CONFIG}")
    content = read_foreign_json(path, MAX_CONFIG_BYTES)
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
    modules, tokens = _read_modules(content, path), _read_tokens(content, path)
    ranks, alphas = (_read_pattern(content, name, path) for name in ("rank_pattern", "alpha_pattern"))
    try:
        default = LoRAConfig(content.get("r", 8), float(alpha), float(dropout), rslora, dora)
        settings = AdapterConfig(default, ranks, alphas, modules, tokens)
        for name in [*settings.ranks, *settings.alphas]:
            settings.get_layer_config(name)
        return settings
    except ConfigError as error:
        raise ExchangeError(f"{str(path)!r} is damaged: {error}") from None


def _read_pattern(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Return the ranks or alphas by the name of layers. Raise ExchangeError for anything else."""
    pattern = content.get(name) or {}
    if not isinstance(pattern, dict) or not all(re.fullmatch(r"[\w.]+", key) for key in pattern):
        raise ExchangeError(f"{str(path)!r} has the pattern {pattern!r:.80}, and only names of layers can be read")
    if not all(isinstance(value, int | float) and abs(value) < 1e30 for value in pattern.values()):
        raise ExchangeError(f"{str(path)!r} is damaged: {pattern!r:.80} has an impossible value")
    return pattern


def _read_modules(content: dict[str, Any], path: Path) -> list[str]:
    """Return the names of the modules to save. Raise ExchangeError for anything else."""
    modules = content.get("modules_to_save") or []
    if not isinstance(modules, list) or not all(isinstance(name, str) and name for name in modules):
        raise ExchangeError(f"{str(path)!r} is damaged: modules_to_save {modules!r:.80} is not a list of names")
    return modules


def _read_tokens(content: dict[str, Any], path: Path) -> dict[str, list[int]]:
    """Return the ids of the trainable tokens by table. Raise ExchangeError for impossible ones."""
    tokens = content.get("trainable_token_indices") or {}
    tokens = {INPUT_TABLE: tokens} if isinstance(tokens, list) else tokens
    if not isinstance(tokens, dict) or not all(table and _is_list_of_ids(ids) for table, ids in tokens.items()):
        why = f"trainable_token_indices {tokens!r:.80} are not lists of different token ids"
        raise ExchangeError(f"{str(path)!r} is damaged: {why}")
    return tokens


def _is_list_of_ids(ids: Any) -> bool:
    """Return True for a list of different whole numbers from 0."""
    is_list = isinstance(ids, list) and ids and all(type(i) is int and 0 <= i < 2**63 for i in ids)
    return bool(is_list) and len(set(ids)) == len(ids)
