"""GPT-2 loaded from transformers and saved for it: equal logits and gradients, and folders that are refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lazy_module import LazyModule
from torch import nn

from minigpt.config import ModelConfig
from minigpt.errors import ExchangeError, InputError
from minigpt.exchange.huggingface_export import save_gpt2
from minigpt.exchange.huggingface_import import load_gpt2
from minigpt.model.gpt import GPT

transformers = LazyModule("transformers")

SHAPE = {"vocab_size": 31, "n_positions": 12, "n_embd": 16, "n_head": 4, "n_layer": 2}
NO_DROPOUT = {"bos_token_id": None, "eos_token_id": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def make_transformers_model(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SHAPE, **NO_DROPOUT | settings))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_transformers_model().save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.mark.parametrize(
    "settings",
    [{}, {"activation_function": "relu"}, {"activation_function": "gelu"}, {"tie_word_embeddings": False}],
    ids=["gpt2", "relu", "exact", "untied"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_loaded_gpt2_has_the_logits_and_gradients_of_transformers(
    dtype: torch.dtype, tolerance: float, settings: dict, tmp_path: Path
) -> None:
    theirs = make_transformers_model(**settings)
    theirs.save_pretrained(tmp_path)
    ours, theirs = load_gpt2(tmp_path).to(dtype), theirs.to(dtype)
    idx = torch.randint(31, (3, 13), generator=torch.Generator().manual_seed(1))
    logits, loss = ours(idx[:, :-1], idx[:, 1:])
    expected = theirs(input_ids=idx[:, :-1]).logits
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
    loss.backward()
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), idx[:, 1:].flatten()).backward()
    named = dict(theirs.transformer.named_parameters())
    for layer in range(2):
        for ours_name, theirs_name in (("attention.qkv", "attn.c_attn"), ("ffwd.down", "mlp.c_proj")):
            gradient = ours.blocks[layer].get_parameter(f"{ours_name}.weight").grad.T
            torch.testing.assert_close(
                gradient, named[f"h.{layer}.{theirs_name}.weight"].grad, rtol=tolerance, atol=tolerance
            )
    torch.testing.assert_close(
        ours.token_embedding_table.weight.grad, named["wte.weight"].grad, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("activation", ["gelu", "gelu_exact", "relu"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_from_pretrained_opens_a_saved_gpt2_and_so_does_load_gpt2(
    qkv_bias: bool, activation: str, tmp_path: Path
) -> None:
    config = ModelConfig(
        vocab_size=19,
        block_size=9,
        n_embd=8,
        n_head=2,
        n_layer=3,
        qkv_bias=qkv_bias,
        activation=activation,
        tied_head=True,
    )
    torch.manual_seed(2)
    ours = GPT(config).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_gpt2(ours, tmp_path / "out")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    idx = torch.randint(19, (2, 9), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs(input_ids=idx).logits, ours(idx)[0], rtol=1e-5, atol=1e-5)
    again = load_gpt2(tmp_path / "out")
    assert again.config.activation == activation
    torch.testing.assert_close(again(idx)[0], ours(idx)[0], rtol=1e-6, atol=1e-6)


def test_a_gpt_whose_head_has_a_bias_is_not_saved(tmp_path: Path) -> None:
    model = GPT(ModelConfig(vocab_size=5, n_embd=4, n_head=1, n_layer=1))
    torch.nn.init.ones_(model.lm_head.bias)
    with pytest.raises(ExchangeError, match="no bias in its last layer"):
        save_gpt2(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_weights(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        change(weights)
        safetensors.torch.save_file(weights, folder / "model.safetensors")

    return apply


def replace_by_pickle(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


REFUSED = {
    "another architecture": (change_config(model_type="llama"), "architecture 'llama': only 'gpt2'"),
    "no architecture": (change_config(model_type=None), "architecture None: only 'gpt2'"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "a config that is not JSON": (lambda folder: (folder / "config.json").write_text("{"), "is damaged: not JSON"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[]"), "architecture None"),
    "n_head that does not divide n_embd": (change_config(n_head=3), "n_embd must be divisible by n_head"),
    "n_layer that is not a number": (change_config(n_layer="two"), "n_layer must be a whole number"),
    "an unsupported activation": (change_config(activation_function="silu"), "activation 'silu', and only gelu_new"),
    "no n_embd": (change_config(n_embd=None), "n_embd must be a whole number"),
    "an activation that is a list": (change_config(activation_function=["gelu_new"]), "and only gelu_new"),
    "an n_embd that fits no memory": (change_config(n_embd=2**30, n_head=1), "no model can be as large|does not fit"),
    "a wide n_inner": (change_config(n_inner=65), "n_inner 65, and only 1 to 64, 4 times n_embd, can be read"),
    "an n_inner that its weights lack": (change_config(n_inner=40), r"mlp\.c_fc\.weight is of shape \[16, 64\]"),
    "an epsilon of zero": (
        change_config(layer_norm_epsilon=0),
        "layer_norm_epsilon 0, and only 1e-13 to 1 can be read",
    ),
    "an epsilon that is a text": (change_config(layer_norm_epsilon="1e-5"), "layer_norm_epsilon '1e-5'"),
    "a weight missing": (
        change_weights(lambda weights: weights.pop("transformer.h.1.attn.c_proj.weight")),
        r"h\.1\.attn\.c_proj\.weight is missing",
    ),
    "a wrong shape": (
        change_weights(lambda weights: weights.update({"transformer.wpe.weight": torch.zeros(3, 16)})),
        r"wpe\.weight is of shape \[3, 16\]",
    ),
    "a NaN": (
        change_weights(lambda weights: weights["transformer.wpe.weight"].fill_(torch.nan)),
        "not a finite number",
    ),
    "integer weights": (
        change_weights(lambda weights: weights.update({"transformer.wpe.weight": torch.zeros(12, 16).int()})),
        "are of type torch.int32",
    ),
    "a pickle": (replace_by_pickle, r"pytorch_model\.bin is a pickle, which could run anything"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"it has no model\.safetensors"),
    "weights that are not safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense"),
        "cannot be read as safetensors",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_or_unsupported_folder_is_refused_in_one_sentence(case: str, folder: Path) -> None:
    damage, message = REFUSED[case]
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_gpt2(folder)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_on_the_hub_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/has-this-model-here", "not a name at all", os.devnull):
        with pytest.raises(ExchangeError, match="is no folder here, and the hub does not give it") as caught:
            load_gpt2(name)
        assert "\n" not in str(caught.value)


def test_another_safetensors_file_in_the_folder_is_ignored(folder: Path) -> None:
    before = load_gpt2(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file({name: torch.zeros_like(w) for name, w in weights.items()}, folder / "old.safetensors")
    after = load_gpt2(folder)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_sharded_weights_are_read(folder: Path) -> None:
    before = load_gpt2(folder)
    make_transformers_model().save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    after = load_gpt2(folder)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def logits_differ(folder: Path, say: Callable[[str], None] = lambda message: None) -> float:
    """The largest difference between our logits and transformers' for the model in a folder."""
    theirs, ids = transformers.GPT2LMHeadModel.from_pretrained(folder).eval(), torch.arange(12)[None]
    with torch.no_grad():
        return float((load_gpt2(folder, say)(ids)[0] - theirs(ids).logits).abs().max())


def save_in_parts(folder: Path) -> None:
    make_transformers_model().save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink(missing_ok=True)


def test_a_part_of_an_older_model_that_the_index_does_not_name_is_left_out(folder: Path) -> None:
    save_in_parts(folder)
    old = {name: torch.zeros_like(w) for name, w in make_transformers_model().state_dict().items()}
    safetensors.torch.save_file(old, folder / "model-00099-of-00099.safetensors", {"format": "pt"})
    messages: list[str] = []
    assert logits_differ(folder, messages.append) < 1e-5
    assert messages == ["model-00099-of-00099.safetensors: left out, as model.safetensors.index.json does not name it"]


def test_a_part_may_have_any_name_and_a_tensor_is_read_where_the_index_places_it(folder: Path) -> None:
    save_in_parts(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    *_, last = sorted(set(index["weight_map"].values()))
    weights = safetensors.torch.load_file(folder / last)
    assert "transformer.wpe.weight" not in weights
    stale = {"transformer.wpe.weight": torch.zeros(12, 16)}
    safetensors.torch.save_file(weights | stale, folder / "z.safetensors", {"format": "pt"})
    (folder / last).unlink()
    named = {name: "z.safetensors" if part == last else part for name, part in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index | {"weight_map": named}))
    theirs, ours = make_transformers_model().state_dict(), load_gpt2(folder).state_dict()
    assert torch.equal(ours["position_embedding_table.weight"], theirs["transformer.wpe.weight"])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, r"has parts of a model, and no model\.safetensors\.index\.json"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "leads out of its folder"),
        ('{"weight_map": {"a": "b.safetensors"}}', "'b.safetensors', which .* names, is missing"),
        (json.dumps({"weight_map": {"a": "b" * 300}}), "the name is too long"),
        ('{"weight_map": {}}', r"wte\.weight is missing"),
    ],
)
def test_an_index_that_is_missing_or_wrong_is_refused(index: str | None, message: str, folder: Path) -> None:
    save_in_parts(folder)
    path = folder / "model.safetensors.index.json"
    path.unlink() if index is None else path.write_text(index)
    with pytest.raises(InputError, match=message):
        load_gpt2(folder)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("settings", [{"layer_norm_epsilon": 1e-6}, {"layer_norm_epsilon": 0.1}, {"n_inner": 24}])
def test_another_epsilon_or_a_narrow_layer_is_converted(settings: dict, tied: bool, folder: Path) -> None:
    make_transformers_model(tie_word_embeddings=tied, **settings).save_pretrained(folder)
    assert logits_differ(folder) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_and_names_without_a_prefix_are_read(dtype: torch.dtype, folder: Path) -> None:
    model = make_transformers_model().to(dtype)
    weights = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    weights.pop("lm_head.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    ours = load_gpt2(folder).state_dict()
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    assert torch.equal(ours["blocks.1.ffwd.up.bias"], weights["h.1.mlp.c_fc.bias"].float())


def test_a_shared_weight_that_is_kept_as_that_of_the_head_is_read(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("transformer.wte.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert logits_differ(folder) < 1e-5
    change_config(tie_word_embeddings=False)(folder)
    with pytest.raises(ExchangeError, match=r"wte\.weight is missing"):
        load_gpt2(folder)
