"""LoRA, rsLoRA and DoRA: equal to PEFT in outputs, gradients and files; merged, unmerged and blended."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from gradient_steps import prepare_steps
from lazy_module import LazyModule
from torch import nn

from minigpt.config import Config, ModelConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import ConfigError
from minigpt.exchange.huggingface_export import save_gpt2
from minigpt.exchange.huggingface_import import load_gpt2
from minigpt.finetuning.adapter_files import load_adapter, save_adapter
from minigpt.finetuning.lora import (
    apply_lora,
    count_trained_parameters,
    find_lora_layers,
    list_adapters,
    merge,
    merge_and_unload,
    unmerge,
    use_adapters,
)
from minigpt.finetuning.lora_layer import LoRALinear
from minigpt.model import build
from minigpt.model.gpt import GPT
from minigpt.training.loop import train_step

peft, transformers = LazyModule("peft"), LazyModule("transformers")

LECTURE = ModelConfig(vocab_size=31, block_size=16, n_embd=32, n_head=4, n_layer=2, implementation="lecture")
FAST = dataclasses.replace(LECTURE, implementation="fast")
GPT2 = dataclasses.replace(FAST, activation="gelu", qkv_bias=True, tied_head=True)
KINDS = [{}, {"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}]
NAMES = ["lora", "rslora", "dora", "rslora and dora"]


def build_random_model(config: ModelConfig, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = build(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def randomize_adapters(model: nn.Module, seed: int = 7) -> None:
    """Give the adapters random weights, as training would."""
    torch.manual_seed(seed)
    for layer in find_lora_layers(model).values():
        for adapter in layer.adapters.values():
            for parameter in adapter.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)


def make_batch(rows: int = 3, T: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    ids = torch.randint(31, (rows, T + 1))
    return ids[:, :-1], ids[:, 1:]


def compute_logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(make_batch()[0])[0]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("config", [LECTURE, FAST, GPT2], ids=["lecture", "fast", "gpt2"])
def test_a_new_adapter_changes_no_logit_and_only_adapters_train(config: ModelConfig, kind: dict) -> None:
    model = build_random_model(config)
    before = compute_logits(model)
    layers = apply_lora(model, rank=4, alpha=8, **kind)
    assert torch.equal(compute_logits(model), before)
    assert len(layers) == config.n_layer * (3 * config.n_head + 3 if config is LECTURE else 4)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".adapters." in name}
    expected = sum(
        4 * (layer.base.in_features + layer.base.out_features) + layer.base.out_features * ("dora" in kind)
        for layer in find_lora_layers(model).values()
    )
    assert count_trained_parameters(model) == expected


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("config", [LECTURE, FAST, GPT2], ids=["lecture", "fast", "gpt2"])
def test_a_merged_model_gives_the_same_logits_and_unmerge_restores_every_bit(
    config: ModelConfig, dtype: torch.dtype, kind: dict
) -> None:
    model = build_random_model(config).to(dtype)
    kept = copy.deepcopy(model.state_dict())
    apply_lora(model, rank=4, alpha=8, **kind)
    randomize_adapters(model)
    apart = compute_logits(model)
    merge(model)
    merge(model)  # twice is once
    assert (compute_logits(model) - apart).abs().max() < (1e-4 if dtype == torch.float32 else 1e-10)
    assert all(
        not torch.equal(layer.base.weight, kept[f"{path}.weight"]) for path, layer in find_lora_layers(model).items()
    )
    unmerge(model)
    assert torch.equal(compute_logits(model), apart)
    found = model.state_dict()
    for name, tensor in kept.items():
        assert torch.equal(found[name if name in found else name_in_lora_layer(name)], tensor)
    merge_and_unload(model)
    assert model.state_dict().keys() == kept.keys()
    assert (compute_logits(model) - apart).abs().max() < (1e-4 if dtype == torch.float32 else 1e-10)
    assert all(p.requires_grad for p in model.parameters())


def name_in_lora_layer(name: str) -> str:
    """Return a parameter's name once its layer has an adapter."""
    layer, _, part = name.rpartition(".")
    return f"{layer}.base.{part}"


def build_peft_model(model: nn.Module, rank: int, alpha: float, kind: dict, folder: Path) -> nn.Module:
    """Return PEFT's adapters over a copy of the base: transformers' GPT-2 or the lecture's model."""
    options: dict[str, Any] = {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": kind.get("rslora", False),
        "use_dora": kind.get("dora", False),
    }
    if isinstance(model, GPT):
        save_gpt2(model, folder / "base")
        base = transformers.GPT2LMHeadModel.from_pretrained(folder / "base").to(next(model.parameters()).dtype)
        targets = ["c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
        return peft.get_peft_model(base, peft.LoraConfig(target_modules=targets, fan_in_fan_out=True, **options))
    targets = ["query", "key", "value", "proj", "net.0", "net.2"]
    return peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(target_modules=targets, **options))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("config", [LECTURE, GPT2], ids=["lecture", "gpt2"])
def test_outputs_and_gradients_equal_peft(config: ModelConfig, dtype: torch.dtype, kind: dict, tmp_path: Path) -> None:
    ours = build_random_model(config).to(dtype).eval()
    theirs = build_peft_model(ours, 4, 12.0, kind, tmp_path).eval()
    apply_lora(ours, rank=4, alpha=12.0, **kind)
    randomize_adapters(ours)
    pairs = pair_parameters(ours, theirs)
    for mine, other in pairs:
        other.data.copy_(mine.data)
    x, y = make_batch()
    found, loss = ours(x, y)
    result = theirs(x)
    other_logits = result.logits if hasattr(result, "logits") else result[0]
    tolerance = 2e-5 if dtype == torch.float32 else 1e-10
    assert (found - other_logits).abs().max() < tolerance
    loss.backward()
    nn.functional.cross_entropy(other_logits.flatten(0, 1), y.flatten()).backward()
    assert all(mine.grad is not None for mine, _ in pairs)
    for mine, other in pairs:
        assert (mine.grad - other.grad).abs().max() < tolerance


def pair_parameters(ours: nn.Module, theirs: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Return our adapters' parameters, each with PEFT's, in the order of the layers."""
    parts = {"A": "lora_A", "B": "lora_B", "magnitude": "lora_magnitude_vector"}
    pairs = []
    for part, other in parts.items():
        mine = [p for name, p in ours.named_parameters() if ".adapters." in name and name.endswith("." + part)]
        them = [p for name, p in theirs.named_parameters() if f".{other}." in name]
        assert len(mine) == len(them)
        pairs += list(zip(mine, them, strict=True))
    return pairs


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_peft_opens_our_adapters_and_we_open_pefts(kind: dict, tmp_path: Path) -> None:
    ours = build_random_model(GPT2).eval()
    save_gpt2(ours, tmp_path / "base")
    apply_lora(ours, rank=4, alpha=12.0, **kind)
    randomize_adapters(ours)
    save_adapter(ours, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base"), tmp_path / "ours"
    ).eval()
    x, _ = make_batch()
    with torch.no_grad():
        assert (theirs(x).logits - ours(x)[0]).abs().max() < 2e-5
    for parameter in (p for name, p in theirs.named_parameters() if "lora_" in name):
        parameter.data += 0.05 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_gpt2(tmp_path / "base")
    load_adapter(again, tmp_path / "theirs")
    with torch.no_grad():
        assert (theirs(x).logits - again(x)[0]).abs().max() < 2e-5


def test_ranks_and_alphas_by_layer_are_read_and_written_as_peft_does(tmp_path: Path) -> None:
    save_gpt2(build_random_model(GPT2), tmp_path / "base")
    base = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4,
        lora_alpha=12.0,
        target_modules=["c_attn", "attn.c_proj", "mlp.c_fc"],
        rank_pattern={"c_attn": 2, "h.1.mlp.c_fc": 5},
        alpha_pattern={"transformer.h.0.attn.c_proj": 3},
        fan_in_fan_out=True,
    )
    theirs = peft.get_peft_model(base, config).eval()
    for parameter in (p for name, p in theirs.named_parameters() if "lora_" in name):
        parameter.data += 0.05 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, x = load_gpt2(tmp_path / "base"), make_batch()[0]
    load_adapter(ours, tmp_path / "theirs")
    save_adapter(ours, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base"), tmp_path / "ours"
    )
    with torch.no_grad():
        expected = theirs(x).logits
        assert (ours(x)[0] - expected).abs().max() < 2e-5
        assert (again.eval()(x).logits - expected).abs().max() < 2e-5


@pytest.mark.parametrize("config", [LECTURE, FAST, GPT2], ids=["lecture", "fast", "gpt2"])
def test_a_saved_adapter_gives_the_same_logits_when_loaded(config: ModelConfig, tmp_path: Path) -> None:
    model = build_random_model(config).eval()
    again = copy.deepcopy(model)
    apply_lora(model, rank=3, alpha=5, dropout=0.25, targets=["proj"], dora=True)
    randomize_adapters(model)
    save_adapter(model, tmp_path)
    assert load_adapter(again, tmp_path, "mine") == list(find_lora_layers(model))
    assert torch.equal(compute_logits(again), compute_logits(model))
    layer = next(iter(find_lora_layers(again).values()))
    assert layer.adapters["mine"].config == next(iter(find_lora_layers(model).values())).adapters["default"].config


def test_adapters_are_switched_scaled_and_blended() -> None:
    model = build_random_model(FAST).eval()
    base = compute_logits(model)
    kept = copy.deepcopy(model)
    apply_lora(model, rank=4, targets=["qkv", "up"], name="a")
    apply_lora(model, rank=2, targets=["up", "down"], name="b")
    randomize_adapters(model)
    assert list_adapters(model) == ["a", "b"]
    use_adapters(model, {})
    assert torch.equal(compute_logits(model), base)
    for scales in ({"a": 1.0}, {"b": 1.0}, {"a": 2.0}, {"a": 0.7, "b": 0.3}, {"a": 0.0}, {}):
        use_adapters(model, scales)
        expected = copy.deepcopy(kept)
        for path, layer in find_lora_layers(model).items():
            weight = expected.get_submodule(path).weight
            for name, scale in scales.items():
                if name in layer.adapters:
                    update = layer.adapters[name]
                    weight.data += scale * update.config.scaling * (update.B @ update.A).detach()
        assert (compute_logits(model) - compute_logits(expected)).abs().max() < 1e-4
    use_adapters(model, {"a": 1.0})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".adapters.a." in name for name in trained)


@pytest.mark.parametrize("config", [LECTURE, FAST], ids=["lecture", "fast"])
def test_training_changes_only_the_adapters_and_lowers_the_loss(config: ModelConfig) -> None:
    model = build_random_model(config)
    settings = Config().override(**{**vars(config), "batch_size": 8, "learning_rate": 3e-2, "max_iters": 60})
    kept = copy.deepcopy(model.state_dict())
    apply_lora(model, rank=4, dropout=0.1)
    data = Dataset(torch.arange(3000) % 31, settings)
    model.train()
    with prepare_steps(model, settings, data) as (wrapped, state):
        losses = [train_step(wrapped, state) for _ in range(60)]
    assert losses[-1] < losses[0] - 0.5
    for name, tensor in kept.items():
        found = model.state_dict()
        assert torch.equal(found[name if name in found else name_in_lora_layer(name)], tensor)
    assert all(bool(layer.adapters["default"].B.any()) for layer in find_lora_layers(model).values())


def test_dropout_applies_to_the_updates_inputs_in_training_only() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 8)
    model = nn.Sequential(layer)
    apply_lora(model, rank=8, alpha=8, dropout=0.5, targets=["0"])
    adapted = model[0]
    assert isinstance(adapted, LoRALinear)
    adapter = adapted.adapters["default"]
    adapter.A.data, adapter.B.data = torch.ones(8, 64), torch.ones(8, 8)
    x = torch.ones(2000, 64)
    model.train()
    update = (model(x) - layer(x)).detach()
    assert update.mean() == pytest.approx(64 * 8, rel=0.02)
    assert update.std() > 10
    model.eval()
    assert torch.allclose((model(x) - layer(x)).detach(), torch.full((2000, 8), 64.0 * 8), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"rank": 0}, "rank must be a whole number at least 1, not 0"),
        ({"rank": 33}, "rank must be at most 32, the smaller side of blocks.0.attention.qkv, not 33"),
        ({"rank": True}, "rank must be a whole number"),
        ({"alpha": 0}, "alpha must be a number above 0"),
        ({"alpha": float("nan")}, "alpha must be a number above 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        (
            {"targets": ["attn"]},
            "'attn': choose from attention.qkv, attention.proj, ffwd.up, ffwd.down",
        ),
        ({"targets": ["ffwd.upp"]}, "no layer is named 'ffwd.upp'; did you mean 'ffwd.up'?"),
        ({"targets": []}, "targets is empty"),
        ({"name": "a.b"}, "cannot be named 'a.b'"),
    ],
)
def test_an_impossible_adapter_is_refused_and_the_model_stays(call: dict, error: str) -> None:
    model = build_random_model(FAST)
    with pytest.raises(ConfigError) as refusal:
        apply_lora(model, **call)
    assert error in str(refusal.value)
    assert not find_lora_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_adapter_names_must_be_new_when_added_and_known_when_used() -> None:
    model = build_random_model(FAST)
    apply_lora(model, name="mine")
    with pytest.raises(ConfigError, match="has an adapter named 'mine' already"):
        apply_lora(model, name="mine")
    with pytest.raises(ConfigError, match="there is no adapter 'mind'; did you mean 'mine'"):
        use_adapters(model, {"mind": 1})
    with pytest.raises(ConfigError, match="must be a number, not nan"):
        use_adapters(model, {"mine": float("nan")})
    with pytest.raises(ConfigError, match="the model has no blocks"):
        apply_lora(build(dataclasses.replace(FAST, architecture="bigram")))


def test_an_adapter_added_to_a_merged_model_changes_no_logit() -> None:
    model = build_random_model(FAST).eval()
    apply_lora(model, rank=4, name="a")
    randomize_adapters(model)
    before = compute_logits(model)
    merge(model)
    apply_lora(model, rank=2, name="b", dora=True)
    assert (compute_logits(model) - before).abs().max() < 1e-5


def test_a_merged_model_can_be_cast_before_it_is_unmerged() -> None:
    model = build_random_model(FAST).eval()
    apply_lora(model, rank=4)
    randomize_adapters(model)
    merge(model)
    model.to(torch.float64)
    unmerge(model)
    assert model(make_batch()[0])[0].dtype == torch.float64


@pytest.mark.parametrize("name", ["keys", "training", "forward", ""])
def test_a_name_that_no_submodule_can_have_is_refused(name: str) -> None:
    model = build_random_model(FAST)
    with pytest.raises(ConfigError, match="cannot be named"):
        apply_lora(model, name=name)
    assert all(p.requires_grad for p in model.parameters())
