"""Fine-tuning on a text with characters outside the base's vocabulary."""

from pathlib import Path

import pytest
from conftest import make_text

import minigpt
from minigpt.data.corpus import Corpus
from minigpt.errors import ConfigError, DataError
from minigpt.finetuning.example_split import count_different
from minigpt.finetuning.method import Method
from minigpt.finetuning.new_characters import extend_vocabulary
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory


@pytest.fixture
def accented_text(tmp_path: Path) -> Path:
    path = tmp_path / "accented_text.txt"
    path.write_text(make_text(4000, seed=3).replace("sea", "séa").replace("salt", "sält"), encoding="utf-8")
    return path


def test_all_new_characters_are_named_at_once(trained: Run, accented_text: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"2 characters that .* lacks: 'ä' 'é'; new_characters='add' gives each a token"
    ):
        minigpt.finetune(trained, data=accented_text, out=tmp_path / "run")
    many = Corpus("".join(map(chr, range(0x4E00, 0x4E00 + 50))), "the text", None, "")
    with pytest.raises(DataError, match=r"50 characters .* and 10 more; "):
        extend_vocabulary(trained, many, None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("choice", "method"), [("add", "full"), ("add", "lora"), ("replace", "full")])
def test_the_vocabulary_grows_or_replaces(
    choice: str, method: Method, trained: Run, accented_text: Path, tmp_path: Path
) -> None:
    settings = {"data": accented_text, "method": method, "new_characters": choice, "max_iters": 2}
    run = minigpt.finetune(trained, out=tmp_path / "run", **settings)
    before = trained.tokenizer.vocab_size
    assert run.tokenizer.vocab_size == before + {"add": 2, "replace": 1}[choice]
    said = run.tokenizer.decode(run.tokenizer.encode("séa, sält"))
    assert said == ("séa, sält" if choice == "add" else "s\ufffda, s\ufffdlt")
    assert run.loss("the séa") > 0
    assert RunDirectory(run.path).read_finetuning_info().new_characters == choice
    longer = minigpt.resume(run.path, max_iters=3)
    straight = minigpt.finetune(trained, out=tmp_path / "straight", **settings | {"max_iters": 3})
    assert longer.loss("the séa") == straight.loss("the séa")
    if method == "lora":
        assert (run.path / "adapter" / "tokens.safetensors").exists()


def test_a_choice_is_refused_where_there_is_none(trained: Run, accented_text: Path, tmp_path: Path) -> None:
    bigram = minigpt.train("bigram", data=accented_text, out=tmp_path / "bigram", max_iters=1)
    with pytest.raises(ConfigError, match="the vocabulary of a bigram"):
        extend_vocabulary(bigram, Corpus("漢", "the text", None, ""), "add")
    with pytest.raises(ConfigError, match="must be one of add, replace, not 'drop'"):
        minigpt.finetune(trained, data=accented_text, new_characters="drop", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="new_characters='add' is for a text: leave it out"):
        minigpt.finetune(trained, tasks=["upper"], new_characters="add", out=tmp_path / "run")


def test_repeated_examples_are_counted_once() -> None:
    assert count_different("abcabc", "examples") == "3 different examples in 6 rows"
    assert count_different("abc", "examples") == "3 examples"
