"""The last exercise: a GPT of the learner's own parts is trained, and its loss decides."""

from pathlib import Path
from types import ModuleType

import pytest
from learn_solutions import write_solutions
from torch import nn

from minigpt import learn
from minigpt.config import ModelConfig
from minigpt.learn.catalog import ENTRIES
from minigpt.learn.exercise import WorkbookError
from minigpt.learn.exercises.train_gpt import try_out
from minigpt.learn.parts import forget_own_parts, run_learner_file
from minigpt.model.lecture import GPTLanguageModel


def run_last_exercise(folder: Path, done: set[str]) -> ModuleType:
    """Run the solved last exercise in a workbook where the exercises of these names are done."""
    workbook = write_solutions(folder)
    for entry in ENTRIES:
        workbook.record_check(entry, entry.name in done, workbook.compute_digest(entry))
    forget_own_parts()
    return run_learner_file(workbook.get_path(ENTRIES[-1]))


ALL = {entry.name for entry in ENTRIES}


def test_a_gpt_of_own_parts_is_trained_and_writes(tmp_path: Path) -> None:
    module = run_last_exercise(tmp_path, ALL)
    said: list[str] = []
    message = try_out(module, "a" * 2000, said.append, seconds=0.2)  # a text without surprise: its loss is zero
    first, *bars = message.splitlines()
    assert first == "The validation loss of your own GPT is 0.0000 nats per character."
    assert bars[0].split()[:2] == ["uniform", "guess"]
    assert any("YOUR GPT" in bar for bar in bars)
    assert bars[-1] == "a" * 301
    assert said[0] == "training for 0.2 seconds on 1,800 characters …"


def test_a_high_loss_fails(tmp_path: Path, text: str) -> None:
    module = run_last_exercise(tmp_path, ALL)
    with pytest.raises(WorkbookError, match=r"The validation loss is \d\.\d{4}, and must be below 2\.0: try other"):
        try_out(module, text, lambda line: None, seconds=0.01)


def test_a_part_of_the_package_is_refused(tmp_path: Path, text: str) -> None:
    module = run_last_exercise(tmp_path, ALL - {"head", "block"})
    with pytest.raises(WorkbookError) as error:
        try_out(module, text, lambda line: None, seconds=0.01)
    assert str(error.value).startswith(
        "Your GPT still uses the package's Head, MultiHeadAttention, FeedForward, Block:"
    )


WRONG = {
    "train_gpt must return the model, and returns NoneType: is `return` missing?": lambda data, V, seconds: None,
    "train_gpt must return the model, and returns tuple.": lambda data, V, seconds: (make_model(V), 1.0),
    "The model has 9 logits at each position instead of 5: set vocab_size": lambda data, V, seconds: make_model(9),
    "The model has no config, so the check does not know": lambda data, V, seconds: nn.Linear(1, 1),
    "This is what comes out when the model is not trained": lambda data, V, seconds: make_model(V),
}


def make_model(vocab_size: int) -> GPTLanguageModel:
    """Return an untrained model."""
    return GPTLanguageModel(ModelConfig(vocab_size=vocab_size, n_embd=8, n_head=1, n_layer=1, block_size=8))


@pytest.mark.parametrize("start", WRONG)
def test_a_wrong_training_is_named(start: str) -> None:
    assert learn.check(23, WRONG[start]).message.startswith(start)
