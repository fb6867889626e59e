"""State dicts of the lecture's code, imported bit for bit, from .pt and .safetensors files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import TINY

import minigpt
from minigpt.config import ModelConfig
from minigpt.errors import DataError, InputError
from minigpt.exchange.export import export_run
from minigpt.exchange.lecture_import import import_lecture
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel
from minigpt.runs.run import Run

TEXT = "hello world"  # 8 characters
CHARACTERS = [" ", "d", "e", "h", "l", "o", "r", "w"]
SHAPE = ModelConfig(vocab_size=8, block_size=6, n_embd=8, n_head=2, n_layer=2)


def make_model(kind: type = GPTLanguageModel) -> Any:
    torch.manual_seed(0)
    model = kind(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("kind", [GPTLanguageModel, BigramLanguageModel])
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_state_dict_gives_the_lectures_logits(kind: type, name: str, prefix: str, tmp_path: Path) -> None:
    model = make_model(kind)
    weights = {prefix + tensor: value for tensor, value in model.state_dict().items()}
    (safetensors.torch.save_file if name == "a.safetensors" else torch.save)(weights, tmp_path / name)
    (tmp_path / "text.txt").write_text(TEXT)
    run = import_lecture(tmp_path / name, tmp_path / "run", tmp_path / "text.txt")
    idx = torch.tensor([[3, 1, 4, 1, 5, 2]])
    torch.testing.assert_close(run.model(idx)[0], model(idx)[0], rtol=1e-5, atol=1e-5)
    assert list(run.tokenizer.stoi) == CHARACTERS


@pytest.mark.parametrize("settings", [{}, {"implementation": "lecture"}, {"architecture": "bigram"}], ids=str)
def test_a_run_goes_to_the_lectures_code_and_back_bit_for_bit(settings: dict, text_file: Path, tmp_path: Path) -> None:
    run = minigpt.train(data=text_file, out=tmp_path / "run", device="cpu", **TINY | {"max_iters": 2} | settings)
    export_run(run, "lecture", tmp_path / "out")
    for source in (tmp_path / "out", tmp_path / "out" / "model.pt"):
        back = import_lecture(source, tmp_path / f"back-{source.name}")
        assert back.tokenizer.to_bytes() == run.tokenizer.to_bytes()
        export_run(back, "lecture", tmp_path / f"again-{source.name}")
        again = torch.load(tmp_path / f"again-{source.name}" / "model.pt", weights_only=True)
        expected = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
        assert again.keys() == expected.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def change_weights(change: Callable[[dict], Any]) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        weights = make_model().state_dict()
        change(weights)
        torch.save(weights, folder / "model.pt")

    return apply


KEY = "blocks.1.sa.heads.0.key.weight"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a weight missing": (change_weights(lambda weights: weights.pop(KEY)), rf"is not complete: it has no '{KEY}'"),
    "one weight more": (
        change_weights(lambda weights: weights.update({"blocks.0.gate": torch.ones(1)})),
        r"is no state dict of the lecture: it has 'blocks\.0\.gate'",
    ),
    "a wrong shape": (
        change_weights(lambda weights: weights.update({KEY: torch.ones(3, 8)})),
        r"does not fit its own sizes: .* is of shape \[3, 8\], not \[4, 8\]",
    ),
    "a NaN": (change_weights(lambda weights: weights[KEY].fill_(torch.nan)), "not a finite number"),
    "integers": (change_weights(lambda weights: weights.update({KEY: torch.ones(4, 8).int()})), r"torch\.int32"),
    "another model": (lambda folder: torch.save({"wte": torch.ones(2, 2)}, folder / "model.pt"), "of two dimensions"),
    "three heads": (
        change_weights(lambda weights: weights.update({"blocks.0.sa.heads.2.query.weight": torch.ones(4, 8)})),
        "n_embd must be divisible by n_head",
    ),
    "no blocks": (
        lambda folder: torch.save(
            {f"{kind}_embedding_table.weight": torch.ones(8, 8) for kind in ("token", "position")}, folder / "model.pt"
        ),
        "n_head must be a whole number",
    ),
    "too few characters": (lambda folder: write_list(folder, ["a", "b"]), "it has 2 characters, and '.*' knows 8"),
    "a character twice": (lambda folder: write_list(folder, [*CHARACTERS[:7], "d"]), "a token is repeated"),
    "a list of numbers": (lambda folder: write_list(folder, [1, 2]), "it must name a character for each id"),
    "no list": (lambda folder: write_list(folder, {"a": 1}), "it must name a character for each id"),
    "a vocabulary that is not JSON": (
        lambda folder: (folder / "vocabulary.json").write_text("["),
        "is damaged: not JSON",
    ),
    "no vocabulary": (lambda folder: (folder / "vocabulary.json").unlink(), "holds no characters: name the text"),
    "weights that are text": (lambda folder: (folder / "model.pt").write_text("hello"), r"no \.pt file that PyTorch"),
    "no weights": (lambda folder: (folder / "model.pt").unlink(), r"model\.safetensors' cannot be read as safetensors"),
}


def write_list(folder: Path, content: object) -> None:
    (folder / "vocabulary.json").write_text(json.dumps(content))


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_state_dict_or_vocabulary_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    folder, (damage, message) = tmp_path / "out", REFUSED[case]
    folder.mkdir()
    torch.save(make_model().state_dict(), folder / "model.pt")
    write_list(folder, CHARACTERS)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        import_lecture(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_links_out_of_the_folder_and_an_empty_text_are_refused(tmp_path: Path) -> None:
    torch.save(make_model().state_dict(), tmp_path / "model.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.pt").symlink_to(tmp_path / "model.pt")
    with pytest.raises(InputError, match="link"):
        import_lecture(tmp_path / "out", tmp_path / "run")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="the text is empty"):
        import_lecture(tmp_path / "model.pt", tmp_path / "run", tmp_path / "empty.txt")


def test_every_command_works_on_an_imported_run(command: Callable, tmp_path: Path) -> None:
    torch.save(make_model().state_dict(), tmp_path / "mine.pt")
    (tmp_path / "text.txt").write_text(TEXT * 20)
    done = command("import", "lecture", "mine.pt", "--data", "text.txt")
    assert done.returncode == 0, done.stderr
    for name, *rest in (
        ("info",),
        ("sample", "--max-new-tokens", "5"),
        ("eval", "--data", "text.txt"),
        ("finetune", "--data", "text.txt", "--lora", "--max-iters", "2", "--out", "tuned"),
        ("export", "--to", "lecture"),
    ):
        done = command(name, "runs/mine", *rest)
        assert done.returncode == 0, done.stderr


def test_the_run_says_where_the_model_is_from(tmp_path: Path) -> None:
    torch.save(make_model().state_dict(), tmp_path / "mine.pt")
    write_list(tmp_path, CHARACTERS)
    run: Run = import_lecture(tmp_path / "mine.pt", tmp_path / "run")
    assert run.info.status == "imported"
    assert str(tmp_path / "mine.pt") in run.info.data_source
