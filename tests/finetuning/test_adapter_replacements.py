"""Adapters that replace weights, PEFT's modules_to_save and trainable tokens: PEFT computes the same logits."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_damage import change_config, change_weights
from lazy_module import LazyModule
from torch import nn

from minigpt.config import Config, ModelConfig
from minigpt.errors import ConfigError, ExchangeError
from minigpt.exchange.huggingface_export import save_gpt2
from minigpt.exchange.huggingface_import import load_gpt2
from minigpt.finetuning.adapter_config import CONFIG
from minigpt.finetuning.adapter_files import (
    WEIGHTS,
    apply_adapters,
    compute_base_fingerprint,
    load_adapter,
    save_adapter,
)
from minigpt.finetuning.lora import apply_lora, list_adapters, merge_and_unload, use_adapters
from minigpt.finetuning.replaced_weights import find_replaced_weights
from minigpt.finetuning.vocabulary_resize import find_moved_ids, resize_embeddings, train_new_rows
from minigpt.model import build
from minigpt.model.gpt import GPT
from minigpt.model.quantization import quantize_layers
from minigpt.runs.run import Run

peft, transformers = LazyModule("peft"), LazyModule("transformers")

SHAPE = ModelConfig(
    vocab_size=31, block_size=16, n_embd=32, n_head=4, n_layer=2, activation="gelu", qkv_bias=True, tied_head=True
)
X = torch.arange(32).remainder(31).view(2, 16)
TOLERANCE = 2e-5
KINDS: list[tuple[dict[str, Any], bool]] = [  # settings of PEFT, and whether a tied head stays tied
    ({"modules_to_save": ["wte"]}, False),
    ({"modules_to_save": ["lm_head"]}, False),
    ({"modules_to_save": ["wte", "lm_head"]}, False),
    ({"modules_to_save": ["lm_head"], "ensure_weight_tying": True}, True),
    ({"modules_to_save": ["ln_f", "h.1.mlp", "0.attn.c_proj"]}, True),
    ({"trainable_token_indices": [5, 1]}, True),
    ({"trainable_token_indices": {"wte": [1, 5], "lm_head": [1, 5]}}, True),
    ({"trainable_token_indices": {"wte": [1, 5], "lm_head": [2]}}, False),
    ({"trainable_token_indices": {"lm_head": [30]}}, False),
    ({"trainable_token_indices": {"wpe": [3]}, "modules_to_save": ["ln_1"]}, True),
    ({"trainable_token_indices": {"lm_head": [2]}, "modules_to_save": ["wte"]}, False),
]


@pytest.fixture(params=[True, False], ids=["tied", "untied"], scope="module")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), tied_head=request.param)


@pytest.fixture(scope="module")
def tied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tied"), tied_head=True)


def make_base(folder: Path, tied_head: bool) -> Path:
    torch.manual_seed(0)
    model = build(dataclasses.replace(SHAPE, tied_head=tied_head))
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.0 if name == "lm_head.bias" else 0.2)
    save_gpt2(model, folder)
    return folder


def train_with_peft(base: Path, folder: Path, **settings: Any) -> nn.Module:
    """Return PEFT's model over the base with random adapter weights, and save the adapter."""
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, **copy.deepcopy(settings))
    model = peft.get_peft_model(transformers.GPT2LMHeadModel.from_pretrained(base), config).eval()
    torch.manual_seed(1)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def open_with_peft(base: Path, adapter: Path, vocab_size: int = 31) -> nn.Module:
    model = transformers.GPT2LMHeadModel.from_pretrained(base)
    if vocab_size != model.config.vocab_size:
        model.resize_token_embeddings(vocab_size)
    return peft.PeftModel.from_pretrained(model, adapter).eval()


@torch.no_grad()
def measure_difference(ours: nn.Module, theirs: nn.Module, x: torch.Tensor = X) -> float:
    return (ours(x)[0] - theirs(x).logits).abs().max().item()


@pytest.mark.parametrize(("settings", "stays_tied"), KINDS, ids=[str(n) for n in range(len(KINDS))])
def test_replaced_weights_are_read_merged_and_written_as_peft_does(
    settings: dict, stays_tied: bool, base: Path, tmp_path: Path
) -> None:
    theirs = train_with_peft(base, tmp_path / "theirs", **settings)
    ours = load_gpt2(base)
    was_tied, before, fingerprint = ours.config.tied_head, ours(X)[0], compute_base_fingerprint(ours)
    load_adapter(ours, tmp_path / "theirs")
    assert measure_difference(ours, theirs) < TOLERANCE
    assert compute_base_fingerprint(ours) == fingerprint
    save_adapter(ours, tmp_path / "ours")
    assert measure_difference(ours, open_with_peft(base, tmp_path / "ours")) < TOLERANCE
    use_adapters(ours, {})
    assert torch.equal(ours(X)[0], before)
    use_adapters(ours, {"default": 1.0})
    merge_and_unload(ours)
    assert measure_difference(ours, theirs) < TOLERANCE
    assert ours.config.tied_head == (was_tied and stays_tied)
    again = build(ours.config).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(X)[0], ours(X)[0])


def test_replaced_weights_train_beside_the_low_rank_updates(tied_base: Path, tmp_path: Path) -> None:
    theirs = train_with_peft(tied_base, tmp_path, modules_to_save=["ln_f"], trainable_token_indices=[1, 5])
    ours = load_gpt2(tied_base)
    load_adapter(ours, tmp_path)
    targets = X.roll(-1, 1)
    ours(X, targets)[1].backward()
    nn.functional.cross_entropy(theirs(X).logits.flatten(0, 1), targets.flatten()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    pairs = {
        "ln_f.weight": "modules_to_save.default.weight",
        "ln_f.bias": "modules_to_save.default.bias",
        "token_embedding_table.weight": "trainable_tokens_delta.default",
    }
    for mine, other in pairs.items():
        (expected,) = (gradient for name, gradient in gradients.items() if name.endswith(other))
        assert torch.allclose(find_replaced_weights(ours)[mine].adapters["default"].value.grad, expected, atol=1e-5)
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == sum(map(torch.numel, gradients.values()))


@pytest.mark.parametrize("old_ids", [[*range(31), None, None], [*range(30), None, None, 30]], ids=["end", "moved"])
def test_peft_opens_our_new_tokens_over_a_resized_base(old_ids: list, base: Path, tmp_path: Path) -> None:
    ours = resize_embeddings(load_gpt2(base), old_ids, seed=3)
    apply_lora(ours, rank=2)
    train_new_rows(ours, old_ids)
    for name, parameter in ours.named_parameters():
        parameter.data += 0.2 * torch.randn_like(parameter) * (parameter.requires_grad and "bias" not in name)
    save_adapter(ours, tmp_path, moved_ids=find_moved_ids(old_ids))
    x = torch.arange(18, 33)[None]
    assert measure_difference(ours.eval(), open_with_peft(base, tmp_path, vocab_size=33), x) < TOLERANCE


@pytest.mark.parametrize("settings", [{"implementation": "lecture"}, {"architecture": "modern"}], ids=str)
def test_pefts_adapters_over_our_own_models_keep_our_names(settings: dict, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(ModelConfig(vocab_size=31, block_size=16, n_embd=32, n_head=2, n_layer=2, **settings)).eval()
    again = copy.deepcopy(model)
    config = peft.LoraConfig(
        target_modules=["lm_head"],
        modules_to_save=["query"],
        trainable_token_indices={"token_embedding_table": [2, 7]},
    )
    theirs = peft.get_peft_model(model, config).eval()
    for parameter in (p for p in theirs.parameters() if p.requires_grad):
        parameter.data += 0.2 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    load_adapter(again, tmp_path)
    with torch.no_grad():
        expected = theirs(X)[0]
        assert (again(X)[0] - expected).abs().max() < TOLERANCE
        merge_and_unload(again)
        assert (again(X)[0] - expected).abs().max() < TOLERANCE


def test_a_scale_is_halfway_between_the_base_and_the_replacement(tied_base: Path, tmp_path: Path) -> None:
    train_with_peft(tied_base, tmp_path, modules_to_save=["ln_f"])
    ours = load_gpt2(tied_base)
    before = ours.ln_f.weight.detach().clone()
    load_adapter(ours, tmp_path)
    after = ours.ln_f.weight.detach()
    use_adapters(ours, {"default": 0.5})
    assert torch.allclose(ours.ln_f.weight, (before + after) / 2)


def test_two_adapters_that_replace_the_same_weights_are_refused(tied_base: Path, tmp_path: Path) -> None:
    train_with_peft(tied_base, tmp_path / "a", modules_to_save=["ln_f"])
    train_with_peft(tied_base, tmp_path / "b", modules_to_save=["0.attn.c_attn"], exclude_modules=".*h.0.*")
    ours = load_gpt2(tied_base)
    load_adapter(ours, tmp_path / "a", "a")
    with pytest.raises(ConfigError, match=r"two of the adapters replace ln_f\.\w+: use one of them"):
        load_adapter(ours, tmp_path / "a", "again")
    with pytest.raises(ExchangeError, match=r"replaces blocks\.0\.attention\.qkv\.\w+, which is quantized or"):
        load_adapter(ours, tmp_path / "b", "b")
    use_adapters(ours, {})
    load_adapter(ours, tmp_path / "a", "again")
    with pytest.raises(ConfigError, match="two of the adapters replace ln_f"):
        use_adapters(ours, {"a": 1.0, "again": 1.0})
    other = load_gpt2(tied_base)
    load_adapter(other, tmp_path / "b", "b")
    with pytest.raises(ConfigError, match=r"one adapter replaces blocks\.0\.attention\.qkv, and another updates it"):
        load_adapter(other, tmp_path / "a", "a")
    assert list_adapters(other) == ["b"]


def test_a_run_whose_head_an_adapter_unties_has_a_config_that_fits(
    tied_base: Path, trained: Run, tmp_path: Path
) -> None:
    theirs = train_with_peft(tied_base, tmp_path, modules_to_save=["wte"])
    model = load_gpt2(tied_base)
    config = Config("lecture", model.config, trained.config.training)
    run = apply_adapters(dataclasses.replace(trained, model=model, config=config), [str(tmp_path)])
    assert not run.config.model.tied_head
    assert measure_difference(run.model, theirs) < TOLERANCE
    assert type(run.model) is GPT


def set_tokens(ids: object) -> Callable[[Path], None]:
    return lambda folder: change_config(folder, trainable_token_indices=ids)


LN, ROWS = "base_model.model.transformer.ln_f.weight", "base_model.model.transformer.wte.token_adapter."
ROWS += "trainable_tokens_delta"
C_ATTN_OF_0 = "base_model.model.transformer.h.0.attn.c_attn"
BROKEN: list[tuple[str, Callable[[Path], object]]] = [
    ("modules_to_save name 'score', which the model lacks", lambda f: change_config(f, modules_to_save=["score"])),
    ("modules_to_save .* is not a list of names", lambda f: change_config(f, modules_to_save="ln_f")),
    ("modules_to_save .* is not a list of names", lambda f: change_config(f, modules_to_save=[3])),
    ("there is no layer for its .*ln_f.bias", lambda f: change_config(f, modules_to_save=None)),
    ("is not complete: .*wpe.weight is missing", lambda f: change_config(f, modules_to_save=["ln_f", "wpe"])),
    ("is not complete: .*ln_f.weight is missing", lambda f: change_weights(f, lambda w: w.pop(LN))),
    (r"ln_f.weight is of shape \[31\], not \[32\]", lambda f: change_weights(f, lambda w: w.update({LN: w[LN][1:]}))),
    ("ln_f.weight has a value that is not a finite", lambda f: change_weights(f, lambda w: w[LN].fill_(torch.inf))),
    ("the trainable token 31, and transformer.wte has 31 rows", set_tokens([1, 31])),
    (r"delta is of shape \[2, 32\], not \[3, 32\]", set_tokens([1, 2, 3])),
    ("are not lists of different token ids", set_tokens([1, 1])),
    ("are not lists of different token ids", set_tokens([-1, 1])),
    ("are not lists of different token ids", set_tokens([True, 2])),
    ("are not lists of different token ids", set_tokens({"wte": 3})),
    ("are not lists of different token ids", set_tokens({"": [3, 4]})),
    ("trainable tokens are of 'embed', which the model lacks", set_tokens({"embed": [1, 5]})),
    ("there is no layer for its .*trainable_tokens_delta", set_tokens(None)),
    ("both name transformer.wte", lambda f: change_config(f, modules_to_save=["ln_f", "transformer.wte"])),
    ("is not complete: .*wte.token_adapter.* is missing", lambda f: change_weights(f, lambda w: w.pop(ROWS))),
    (
        "blocks.1.attention.qkv is replaced, and has a low-rank update too",
        lambda f: (
            change_config(f, modules_to_save=["ln_f", "1.attn.c_attn"]),
            change_weights(
                f,
                lambda w: w.update(
                    {f"{C_ATTN_OF_0.replace('0', '1')}.{part}": torch.zeros(size) for part, size in C_ATTN.items()}
                ),
            ),
        ),
    ),
]
C_ATTN = {"weight": (32, 96), "bias": (96,)}


@pytest.fixture(scope="module")
def adapter(tied_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    train_with_peft(tied_base, folder, modules_to_save=["ln_f"], trainable_token_indices=[1, 5])
    return folder


@pytest.mark.parametrize(("error", "damage"), BROKEN, ids=[f"{n} {error[:30]}" for n, (error, _) in enumerate(BROKEN)])
def test_replacements_that_do_not_fit_are_refused_and_the_model_stays(
    error: str, damage: Callable[[Path], object], adapter: Path, tied_base: Path, tmp_path: Path
) -> None:
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((adapter / name).read_bytes())
    damage(tmp_path)
    model = load_gpt2(tied_base)
    with pytest.raises(ExchangeError, match=error):
        load_adapter(model, tmp_path)
    assert not list_adapters(model)
    assert model.config.tied_head and model.lm_head is None


def test_a_quantized_layer_is_not_replaced(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied_head=False)
    train_with_peft(base, tmp_path / "adapter", modules_to_save=["lm_head"])
    model = load_gpt2(base)
    quantize_layers(model, "int8")
    with pytest.raises(ExchangeError, match=r"replaces lm_head\.weight, which is quantized or has another adapter"):
        load_adapter(model, tmp_path / "adapter")
