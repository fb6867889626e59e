"""nanoGPT's checkpoints: exported in its layout with the run's logits, and imported bit for bit."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from texts import PROSE
from torch import Tensor
from torch.nn import functional as F

import minigpt
from minigpt.errors import ExchangeError
from minigpt.exchange.export import export_run
from minigpt.exchange.nanogpt_import import import_nanogpt, read_vocabulary
from minigpt.runs.run import Run
from minigpt.tokenizers.bpe import BPETokenizer

NANOGPT = {"tied_head": True, "activation": "gelu_exact"}
KINDS: dict[str, dict[str, Any]] = {
    "nanogpt": NANOGPT,
    "biased": NANOGPT | {"qkv_bias": True},
    "default": {},
    "tied": {"tied_head": True, "activation": "gelu"},
    "bpe": NANOGPT | {"tokenizer": "bpe", "vocab_size": 300},
    "modern": {"architecture": "modern"},
}


@pytest.fixture(scope="module")
def runs(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A function that returns a run of a kind, trained once."""
    folder = tmp_path_factory.mktemp("nanogpt")

    def find(kind: str) -> Run:
        if not (folder / kind).exists():
            settings = TINY | {"max_iters": 4, "eval_interval": 4, "learning_rate": 2e-2, "device": "cpu"}
            minigpt.train(data=text_file, out=folder / kind, **settings | KINDS[kind])
        return minigpt.load(folder / kind)

    return find


def compute_nanogpt_logits(weights: dict[str, Tensor], n_head: int, idx: Tensor) -> Tensor:
    """The formula of nanoGPT's model, with or without biases."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    B, T = idx.shape
    x = weights["transformer.wte.weight"][idx] + weights["transformer.wpe.weight"][:T]
    for layer in range(sum(name.endswith("ln_1.weight") for name in weights)):
        block = f"transformer.h.{layer}"
        qkv = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").view(B, T, 3, n_head, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"{block}.attn.c_proj")
        hidden = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        x = x + linear(hidden, f"{block}.mlp.c_proj")
    return linear(norm(x, "transformer.ln_f"), "lm_head")


@pytest.mark.parametrize("kind", ["nanogpt", "biased"])
def test_a_run_goes_to_nanogpt_with_its_logits_and_back_bit_for_bit(
    kind: str, runs: Callable[[str], Run], tmp_path: Path
) -> None:
    run = runs(kind)
    result = export_run(run, "nanogpt", tmp_path / "out")
    assert result.difference is not None
    assert result.difference < 1e-5
    saved = torch.load(tmp_path / "out" / "ckpt.pt", weights_only=True)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": run.tokenizer.vocab_size}
    assert saved["model_args"] == sizes | {"bias": True, "dropout": 0.0}
    assert saved["config"]["dataset"] == kind
    assert saved["iter_num"] == 4
    assert saved["best_val_loss"] == run.info.validation_loss
    idx = torch.randint(run.tokenizer.vocab_size, (3, 16), generator=torch.Generator().manual_seed(0))
    logits = compute_nanogpt_logits(saved["model"], 2, idx)
    torch.testing.assert_close(logits, run.model(idx)[0], rtol=1e-5, atol=1e-5)
    meta = pickle.loads((tmp_path / "out" / "meta.pkl").read_bytes())
    assert (meta["vocab_size"], meta["stoi"], meta["itos"]) == (
        len(meta["stoi"]),
        run.tokenizer.stoi,
        run.tokenizer.itos,
    )
    back = import_nanogpt(tmp_path / "out", tmp_path / "back")
    ours, again = run.model.state_dict(), back.model.state_dict()
    assert ours.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())
    assert back.tokenizer.to_bytes() == run.tokenizer.to_bytes()
    assert back.config.model == run.config.model


def make_checkpoint(folder: Path, vocab_size: int, prefix: str = "", **changes: Any) -> dict[str, Tensor]:
    """Write a checkpoint of nanoGPT without biases, and return its weights."""
    torch.manual_seed(0)
    shapes = {"transformer.wte": (vocab_size, 8), "transformer.wpe": (5, 8), "transformer.ln_f": (8,)}
    shapes |= {"transformer.h.0.ln_1": (8,), "transformer.h.0.ln_2": (8,), "transformer.h.0.attn.c_attn": (24, 8)}
    shapes |= {"transformer.h.0.attn.c_proj": (8, 8), "transformer.h.0.mlp.c_fc": (32, 8)}
    shapes |= {"transformer.h.0.mlp.c_proj": (8, 32)}
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    arguments = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 5, "bias": False, "vocab_size": vocab_size}
    content = {"model": {prefix + name: tensor for name, tensor in weights.items()}, "model_args": arguments}
    content |= {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "best_val_loss": torch.tensor(1.0)}
    folder.mkdir(exist_ok=True)
    torch.save(content | changes, folder / "ckpt.pt")
    return weights


def write_meta(path: Path, characters: str) -> None:
    stoi = {character: i for i, character in enumerate(characters)}
    content = {"vocab_size": len(stoi), "itos": {i: c for c, i in stoi.items()}, "stoi": stoi}
    path.write_bytes(pickle.dumps(content, protocol=4))


def test_a_compiled_checkpoint_without_biases_and_with_padding_is_imported(tmp_path: Path) -> None:
    weights = make_checkpoint(tmp_path / "out", 16, "_orig_mod.")
    write_meta(tmp_path / "meta.pkl", "abcdefghijk")
    run = import_nanogpt(tmp_path / "out" / "ckpt.pt", tmp_path / "run", tmp_path / "meta.pkl")
    idx = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    expected = compute_nanogpt_logits(weights, 2, idx)[..., :11]
    torch.testing.assert_close(run.model(idx)[0], expected, rtol=1e-5, atol=1e-5)
    assert run.tokenizer.encode("deed") == [3, 4, 4, 3]
    assert not run.config.model.qkv_bias


def test_a_checkpoint_with_padding_gets_a_tokenizer_that_is_named(tmp_path: Path) -> None:
    weights = make_checkpoint(tmp_path / "out", 272)
    BPETokenizer.train(PROSE, 270).save(tmp_path / "tokenizer.json")
    run = import_nanogpt(tmp_path / "out", tmp_path / "run", tmp_path / "tokenizer.json")
    idx = torch.tensor([[3, 269, 4, 1, 5]])
    torch.testing.assert_close(
        run.model(idx)[0], compute_nanogpt_logits(weights, 2, idx)[..., :270], rtol=1e-5, atol=1e-5
    )
    assert run.tokenizer.decode(run.tokenizer.encode(PROSE)) == PROSE


def test_weights_that_are_not_tied_are_imported_as_two_tables(tmp_path: Path) -> None:
    weights = make_checkpoint(tmp_path / "out", 11)
    weights["lm_head.weight"] = torch.randn(11, 8)
    make_checkpoint(tmp_path / "out", 11, model=weights)
    write_meta(tmp_path / "out" / "meta.pkl", "abcdefghijk")
    run = import_nanogpt(tmp_path / "out", tmp_path / "run")
    idx = torch.tensor([[3, 1, 4, 1, 5]])
    torch.testing.assert_close(run.model(idx)[0], compute_nanogpt_logits(weights, 2, idx), rtol=1e-5, atol=1e-5)


def test_special_tokens_survive_the_vocabulary_of_nanogpt(tmp_path: Path) -> None:
    content = {"itos": {0: "a", 1: "b", 2: "<|end|>"}}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(content))
    tokenizer = read_vocabulary(tmp_path / "meta.pkl")
    assert (tokenizer.stoi, tokenizer.special_tokens) == ({"a": 0, "b": 1}, {"<|end|>": 2})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "default",
            r"has a head of its own.* and the activation relu, not gelu_exact: train with --preset nanogpt-cpu",
        ),
        ("tied", "has the activation gelu, not gelu_exact: train with --preset nanogpt-cpu, or with"),
        ("bpe", "holds characters only, and '.*' has a bpe tokenizer: train with --tokenizer char"),
        ("modern", "holds a GPT, and '.*' is a modern model: "),
    ],
)
def test_what_nanogpt_cannot_compute_is_refused_by_name(
    kind: str, message: str, runs: Callable[[str], Run], tmp_path: Path
) -> None:
    with pytest.raises(ExchangeError, match=message) as caught:
        export_run(runs(kind), "nanogpt", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def change_weights(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = make_checkpoint(folder, 11)
        change(weights)
        make_checkpoint(folder, 11, model=weights)

    return apply


def write_pickle(content: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "meta.pkl").write_bytes(pickle.dumps(content)) and None


WPE = "transformer.wpe.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a state dict alone": (lambda folder: torch.save({"a": torch.ones(1)}, folder / "ckpt.pt"), "'model_args'"),
    "a tensor alone": (lambda folder: torch.save(torch.ones(1), folder / "ckpt.pt"), "but a Tensor: save a state_dict"),
    "weights that are text": (lambda folder: make_checkpoint(folder, 11, model="x"), "holds no state dict"),
    "a weight that is a number": (change_weights(lambda weights: weights.update({WPE: 3})), "is no plain tensor"),
    "a sparse weight": (
        change_weights(lambda weights: weights.update({WPE: torch.ones(5, 8).to_sparse()})),
        "is no plain tensor",
    ),
    "a weight of many numbers that are one": (
        change_weights(lambda weights: weights.update({WPE: torch.zeros(1, 1).expand(2**20, 2**20)})),
        "has a shape of more numbers than the file holds",
    ),
    "a weight missing": (change_weights(lambda weights: weights.pop(WPE)), r"transformer\.wpe\.weight is missing"),
    "a wrong shape": (
        change_weights(lambda weights: weights.update({WPE: torch.ones(4, 8)})),
        r"\[4, 8\], not \[5, 8\]",
    ),
    "a NaN": (change_weights(lambda weights: weights[WPE].fill_(torch.nan)), "not a finite number"),
    "integers": (
        change_weights(lambda weights: weights.update({WPE: torch.ones(5, 8).int()})),
        r"of type torch\.int32",
    ),
    "no size": (lambda folder: make_checkpoint(folder, 11, model_args={"n_layer": 1}), "vocab_size must be a whole"),
    "too large a size": (
        lambda folder: make_checkpoint(
            folder, 11, model_args={"n_layer": 1, "n_head": 1, "n_embd": 2**40, "block_size": 2**40, "vocab_size": 9}
        ),
        "no model can be as large|is of shape",
    ),
    "no vocabulary": (lambda folder: (folder / "meta.pkl").unlink(), "names its 11 characters: add --meta"),
    "too many characters": (lambda folder: write_meta(folder / "meta.pkl", "abcdefghijklm"), "it has 13 tokens, and"),
    "a list of characters": (write_pickle(["a"]), "it holds no dict|EMPTY_LIST"),
    "a vocabulary with a gap": (write_pickle({"itos": {0: "a", 2: "b"}}), "must name a character for each id from 0"),
    "no itos": (write_pickle({"stoi": {"a": 0}}), "must name a character for each id from 0"),
    "a token twice": (write_pickle({"itos": {0: "a", 1: "a"}}), "a token is repeated"),
    "half a surrogate": (write_pickle({"itos": {0: "\ud800"}}), "has half a surrogate pair"),
    "a float": (write_pickle({"itos": {0: 1.5}}), "more than dicts, strings and integers: BINFLOAT"),
    "a memo of many places": (
        lambda folder: (folder / "meta.pkl").write_bytes(b"\x80\x04}r\xff\xff\xff\x7f."),
        "is damaged: a number is too large",
    ),
    "an empty file": (lambda folder: (folder / "meta.pkl").write_bytes(b""), "is damaged: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_checkpoint_or_vocabulary_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    folder, (damage, message) = tmp_path / "out", REFUSED[case]
    make_checkpoint(folder, 11)
    write_meta(folder / "meta.pkl", "abcdefghijk")
    damage(folder)
    with pytest.raises(ExchangeError, match=message) as caught:
        import_nanogpt(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_every_command_works_on_an_imported_run(command: Callable, tmp_path: Path) -> None:
    characters = "".join(sorted(set(PROSE)))
    make_checkpoint(tmp_path / "out-prose", len(characters))
    (tmp_path / "text.txt").write_text(PROSE)
    refused = command("import", "nanogpt", "out-prose")
    assert refused.returncode == 2
    assert "add --meta data/NAME/meta.pkl" in refused.stderr
    write_meta(tmp_path / "meta.pkl", characters)
    done = command("import", "nanogpt", "out-prose", "--meta", "meta.pkl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "runs/out-prose"
    for arguments in (
        ["info"],
        ["sample", "--max-new-tokens", "5"],
        ["eval", "--data", "text.txt"],
        ["finetune", "--data", "text.txt", "--max-iters", "2", "--out", "tuned"],
    ):
        name, *rest = arguments
        done = command(name, "runs/out-prose", *rest)
        assert done.returncode == 0, done.stderr
    again = command("export", "runs/out-prose", "--to", "nanogpt")
    assert again.returncode == 0, again.stderr
    assert "checked with minigpt import nanogpt: the logits differ by at most" in again.stdout
