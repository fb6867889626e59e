"""Adapters on disk: broken ones are refused by name, and each belongs to one base."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_damage import change_config, change_weights
from torch import nn

from minigpt.config import ModelConfig
from minigpt.errors import ConfigError, ExchangeError, FileError
from minigpt.finetuning.adapter_files import (
    CONFIG,
    PICKLE,
    WEIGHTS,
    compute_base_fingerprint,
    load_adapter,
    save_adapter,
)
from minigpt.finetuning.lora import apply_lora, find_lora_layers, merge
from minigpt.model import build

SHAPE = ModelConfig(vocab_size=31, block_size=16, n_embd=32, n_head=4, n_layer=2)


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    return build(SHAPE)


@pytest.fixture
def adapter_folder(base: nn.Module, tmp_path: Path) -> Path:
    model = copy.deepcopy(base)
    apply_lora(model, rank=4)
    save_adapter(model, tmp_path / "adapter")
    return tmp_path / "adapter"


FIRST = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
BROKEN: list[tuple[str, Callable[[Path], object]]] = [
    ("is no adapter: it has no adapter_config.json", lambda f: (f / CONFIG).unlink()),
    ("is damaged: not JSON", lambda f: (f / CONFIG).write_text("{")),
    ("is not of a LoRA adapter", lambda f: change_config(f, peft_type="IA3")),
    ("only names of layers can be read", lambda f: change_config(f, rank_pattern={"(a|a)*b": 2})),
    ("damaged: .* has an impossible value", lambda f: change_config(f, alpha_pattern={"c_attn": "2"})),
    ("damaged: rank must be a whole number", lambda f: change_config(f, rank_pattern={"c_attn": 0})),
    ("does not fit this model: .* and the rank is 3", lambda f: change_config(f, rank_pattern={"c_attn": 3})),
    ("is not of a LoRA adapter", lambda f: (f / CONFIG).write_text("[]")),
    ("has bias 'all', and only 'none'", lambda f: change_config(f, bias="all")),
    ("is damaged: rank must be a whole number", lambda f: change_config(f, r="4")),
    ("is damaged: rank must be a whole number", lambda f: change_config(f, r=-1)),
    ("is damaged: lora_alpha", lambda f: change_config(f, lora_alpha="16")),
    ("is damaged: lora_alpha", lambda f: change_config(f, use_dora=3)),
    ("is damaged: dropout", lambda f: change_config(f, lora_dropout=7.0)),
    (r"does not fit this model: .* is of shape \[4, 32\], and the rank is 3", lambda f: change_config(f, r=3)),
    ("does not fit this model", lambda f: change_config(f, r=10**12)),
    ("does not fit this model", lambda f: change_config(f, r=2**70)),
    ("is damaged: lora_alpha", lambda f: change_config(f, lora_alpha=10**400)),
    ("has init_lora_weights 'pissa'", lambda f: change_config(f, init_lora_weights="pissa")),
    ("has alora_invocation_tokens", lambda f: change_config(f, alora_invocation_tokens=[1])),
    ("lora_magnitude_vector is missing", lambda f: change_config(f, use_dora=True)),
    ("it has no adapter_model.safetensors", lambda f: (f / WEIGHTS).unlink()),
    ("is a pickle, which could run anything", lambda f: (f / WEIGHTS).rename(f / PICKLE)),
    ("cannot be read as safetensors", lambda f: (f / WEIGHTS).write_bytes(b"\0" * 100)),
    ("cannot be read as safetensors", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-4])),
    (
        "is not complete: .*lora_B.weight is missing",
        lambda f: change_weights(f, lambda w: w.pop(FIRST.replace("A", "B"))),
    ),
    ("there is no layer for its", lambda f: change_weights(f, lambda w: w.update({"base_model.x": torch.zeros(2)}))),
    ("not a finite number", lambda f: change_weights(f, lambda w: w[FIRST].fill_(float("nan")))),
    ("are of type torch.int32", lambda f: change_weights(f, lambda w: w.update({FIRST: w[FIRST].int()}))),
    ("is empty: it has no tensors", lambda f: change_weights(f, lambda w: w.clear())),
    ("does not fit this model", lambda f: change_weights(f, lambda w: w.update({FIRST: w[FIRST][:, :-1].clone()}))),
]


@pytest.mark.parametrize(("error", "damage"), BROKEN, ids=[f"{n} {error[:30]}" for n, (error, _) in enumerate(BROKEN)])
def test_a_broken_adapter_is_refused_and_the_model_stays(
    error: str, damage: Callable[[Path], object], adapter_folder: Path, base: nn.Module
) -> None:
    damage(adapter_folder)
    with pytest.raises((ExchangeError, FileError), match=error):
        load_adapter(base, adapter_folder)
    assert not find_lora_layers(base)
    assert all(parameter.requires_grad for parameter in base.parameters())


def test_an_adapter_is_refused_over_another_base(adapter_folder: Path, base: nn.Module) -> None:
    other = copy.deepcopy(base)
    other.blocks[1].ffwd.up.weight.data[0, 0] += 1e-3
    with pytest.raises(ExchangeError, match="is an adapter for another base: use it"):
        load_adapter(other, adapter_folder)
    load_adapter(base, adapter_folder)
    with pytest.raises(ConfigError, match="has an adapter named 'default' already"):
        load_adapter(base, adapter_folder)
    load_adapter(base, adapter_folder, "second")  # beside the first, and over it: the base is the same


def test_the_base_fingerprint_ignores_adapters_merged_or_not(adapter_folder: Path, base: nn.Module) -> None:
    before = compute_base_fingerprint(base)
    load_adapter(base, adapter_folder)
    for layer in find_lora_layers(base).values():
        layer.adapters["default"].B.data += 1
    assert compute_base_fingerprint(base) == before
    merge(base)
    assert compute_base_fingerprint(base) == before


def test_an_adapter_takes_a_few_kilobytes_in_two_files(adapter_folder: Path) -> None:
    assert sum(path.stat().st_size for path in adapter_folder.iterdir()) < 40_000
    assert {path.name for path in adapter_folder.iterdir()} == {CONFIG, WEIGHTS}
