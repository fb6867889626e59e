"""The weights that an adapter in PEFT's format replaces: its `modules_to_save` and its trainable tokens.

A GPT-2 can have a head that is tied to the embedding. PEFT keeps them tied in two cases: for trainable tokens of the
embedding, and if the saved embedding and the saved head are equal. In all other cases PEFT unties them, and so does
this module.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minigpt.errors import ExchangeError
from minigpt.finetuning.adapter_config import AdapterConfig
from minigpt.finetuning.peft_names import PREFIX, TOKEN_ROWS, map_peft_names
from minigpt.finetuning.replaced_weights import (
    EMBEDDING,
    HEAD,
    Replacement,
    find_replaced_weights,
    get_base_parameter,
)
from minigpt.model.gpt import GPT
from minigpt.model.gpt2_names import is_transposed

TABLE, HEAD_TABLE = f"{EMBEDDING}.weight", f"{HEAD}.weight"


class _Place(NamedTuple):
    """Where a tensor of an adapter goes: the name of our parameter, and the ids of rows, None for all of it."""

    parameter: str
    ids: list[int] | None = None


class ReadReplacements(NamedTuple):
    """What an adapter replaces, by the names of our parameters, and whether a tied head gets weights of its own."""

    tensors: dict[str, Replacement]
    unties_head: bool


def read_replacements(
    model: nn.Module, settings: AdapterConfig, weights: Mapping[str, Tensor], folder: Path
) -> ReadReplacements:
    """Return what an adapter replaces. The model stays as it is.

    Args:
        model: the base.
        settings: the adapter's settings.
        weights: the adapter's tensors without the low-rank updates, by PEFT's names.
        folder: the adapter's folder, for messages.

    Raises:
        ExchangeError: a tensor or a setting does not fit the model.
    """
    names = map_peft_names(model)
    places = _find_whole_tensors(names, settings.modules, folder)
    for key, place in _find_tables(names, settings.tokens, folder).items():
        if names[place.parameter] in places:
            both = f"modules_to_save and trainable_token_indices both name {_get_module_name(key)}"
            raise ExchangeError(f"{str(folder)!r} is damaged: {both}")
        places[key] = place
    is_tied = has_tied_head(model)
    optional = _tie_places(names, places) if is_tied else set()
    if stray := weights.keys() - places.keys():
        raise ExchangeError(f"{str(folder)!r} does not fit this model: there is no layer for its {min(stray)}")
    if missing := places.keys() - weights.keys() - optional:
        raise ExchangeError(f"{str(folder)!r} is not complete: {min(missing)} is missing")
    found = {places[key].parameter: _fit(model, key, weights[key], places[key], folder) for key in weights}
    table, head = found.get(TABLE), found.get(HEAD_TABLE)
    if is_tied and table and head and table.ids is None and torch.equal(table.value, head.value):
        del found[HEAD_TABLE]
        return ReadReplacements(found, False)
    return ReadReplacements(found, is_tied and (head is not None or (table is not None and table.ids is None)))


def has_tied_head(model: nn.Module) -> bool:
    """Return True for a GPT whose head is its embedding."""
    return isinstance(model, GPT) and model.lm_head is None


def _find_whole_tensors(names: Mapping[str, str], modules: Sequence[str], folder: Path) -> dict[str, _Place]:
    """Return the tensors of the modules to save, by PEFT's names. A module is named by the end of its path."""
    places: dict[str, _Place] = {}
    for module in modules:
        found = {key: _Place(ours) for ours, key in names.items() if _is_inside(key, module)}
        if not found:
            raise ExchangeError(
                f"{str(folder)!r} does not fit this model: its modules_to_save name {module!r}, which the model lacks"
            )
        places |= found
    return places


def _is_inside(key: str, module: str) -> bool:
    """Return True where the tensor is of this module or of one inside it. As in PEFT, the end of a path is enough."""
    words = key.removeprefix(PREFIX).split(".")[:-1]
    return any(".".join(words[:count]).endswith(module) for count in range(1, len(words) + 1))


def _find_tables(names: Mapping[str, str], tokens: Mapping[str, list[int]], folder: Path) -> dict[str, _Place]:
    """Return the tables of the trainable tokens, by PEFT's names of their rows."""
    places: dict[str, _Place] = {}
    for table, ids in tokens.items():
        found = {
            key.removesuffix(".weight") + TOKEN_ROWS: _Place(ours, ids)
            for ours, key in names.items()
            if key.endswith(f"{table}.weight")
        }
        if not found:
            raise ExchangeError(
                f"{str(folder)!r} does not fit this model: its trainable tokens are of {table!r}, which the model lacks"
            )
        places |= found
    return places


def _tie_places(names: Mapping[str, str], places: dict[str, _Place]) -> set[str]:
    """Change the places for a tied head, in place, and return the names of tensors that may be missing.

    PEFT writes a saved embedding under the head's name too, and rows of both tables only once if they are the same.
    """
    table, head = names[TABLE], names[HEAD_TABLE]
    rows, head_rows = (key.removesuffix(".weight") + TOKEN_ROWS for key in (table, head))
    if rows in places and head_rows in places and places[rows].ids == places[head_rows].ids:
        del places[head_rows]
    if table in places and head not in places and head_rows not in places:
        places[head] = _Place(HEAD_TABLE)
        return {head}
    return set()


def _fit(model: nn.Module, key: str, tensor: Tensor, place: _Place, folder: Path) -> Replacement:
    """Return the replacement in our layout. Raise ExchangeError if it does not fit our parameter."""
    name, ids = place
    base = get_base_parameter(model, TABLE if name == HEAD_TABLE and has_tied_head(model) else name)
    if base is None:
        why = "which is quantized or has another adapter in this model: take the original run"
        raise ExchangeError(f"{str(folder)!r} replaces {name}, {why}")
    if ids and max(ids) >= len(base):
        table = _get_module_name(key)
        raise ExchangeError(
            f"{str(folder)!r} does not fit this model: it has the trainable token {max(ids)}, and {table} has "
            f"{len(base)} rows"
        )
    shape = list(base.shape) if ids is None else [len(ids), *base.shape[1:]]
    is_turned = _is_turned(model, key)
    if list(tensor.shape) != (shape[::-1] if is_turned else shape):
        wrong = f"{key} is of shape {list(tensor.shape)}, not {shape[::-1] if is_turned else shape}"
        raise ExchangeError(f"{str(folder)!r} does not fit this model: {wrong}")
    value = (tensor.T if is_turned else tensor).to(base).contiguous()
    return Replacement(value, None if ids is None else torch.tensor(ids, device=base.device))


def convert_replacements(
    model: nn.Module, name: str, moved_ids: Sequence[int] = ()
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of an adapter's replacements by PEFT's names, and their settings in adapter_config.json.

    Args:
        model: a model with the adapter.
        name: the adapter's name.
        moved_ids: tokens that have another id in the base. Where the adapter replaces only some rows of a table, their
            rows are saved too.
    """
    names, is_tied = map_peft_names(model), has_tied_head(model)
    tensors: dict[str, Tensor] = {}
    modules: dict[str, None] = {}  # a dict keeps their order
    tokens: dict[str, list[int]] = {}
    content: dict[str, Any] = {}
    for ours, weight in find_replaced_weights(model).items():
        if name not in weight.adapters or ours not in names:
            continue
        base, adapter, key = get_base_parameter(model, ours), weight.adapters[name], names[ours]
        assert base is not None
        value = adapter(base, 1.0).detach().cpu()
        if adapter.ids is not None:
            if key.endswith(".weight"):  # PEFT has no rows of a bias
                tokens[_get_module_name(key)] = ids = sorted({*adapter.ids.tolist(), *moved_ids})
                tensors[key.removesuffix(".weight") + TOKEN_ROWS] = value[ids]
            continue
        if ours == TABLE and is_tied:  # else PEFT would keep the base's head
            content["ensure_weight_tying"] = True
            tensors[names[HEAD_TABLE]] = value.clone()
            modules[HEAD] = None
        tensors[key] = (value.T if _is_turned(model, key) else value).contiguous()
        modules[_get_module_name(key)] = None
    return tensors, {**content, "modules_to_save": [*modules] or None, "trainable_token_indices": tokens or None}


def _is_turned(model: nn.Module, key: str) -> bool:
    """Return True for a tensor that PEFT's file has transposed."""
    return isinstance(model, GPT) and is_transposed(key)


def _get_module_name(key: str) -> str:
    """Return PEFT's name of a module, from that of its tensor."""
    name = key.removeprefix(PREFIX)
    return name.removesuffix(TOKEN_ROWS) if name.endswith(TOKEN_ROWS) else name.rpartition(".")[0]
