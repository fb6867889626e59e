"""Runs are ranked only by figures that can be compared, and the units are those of their tokens."""

import dataclasses
from pathlib import Path

from minigpt.runs.run import Run
from minigpt.studies.look.curves import describe_ranking, draw_curves, get_unit


def change(run: Run, name: str, **changes: object) -> Run:
    """The run under another name, with another run.json and perhaps another tokenizer."""
    kind = changes.pop("tokenizer", "char")
    info = dataclasses.replace(run.info, **changes)
    return dataclasses.replace(run, path=Path(name), info=info, config=run.config.override(tokenizer=kind))


def test_runs_of_one_tokenizer_are_ranked_by_their_loss(trained: Run) -> None:
    runs = [change(trained, "a", validation_loss=2.0), change(trained, "b", validation_loss=1.5)]
    assert describe_ranking(runs) == "lowest exact validation loss: 1.5000 nats per character, b"


def test_runs_of_different_tokenizers_are_ranked_by_bits_per_byte(trained: Run) -> None:
    bpe = change(trained, "bpe", tokenizer="gpt2", tokenizer_sha256="0", validation_loss=3.0, bits_per_byte=2.0)
    char = change(trained, "char", validation_loss=1.9, bits_per_byte=2.7)
    assert describe_ranking([char, bpe]) == "fewest bits per byte of the text: 2.0000, bpe"
    unmeasured = change(bpe, "bpe", tokenizer="gpt2", bits_per_byte=None)
    assert "cannot be compared" in describe_ranking([char, unmeasured])
    assert [get_unit(run) for run in (char, bpe)] == ["character", "token"]


def test_runs_of_different_texts_are_not_ranked(trained: Run) -> None:
    assert "different texts" in describe_ranking([trained, change(trained, "other", data_sha256="0")])


def test_the_axis_names_the_unit_of_the_runs(trained: Run) -> None:
    bpe = change(trained, "bpe", tokenizer="gpt2")
    labels = [draw_curves(runs).axes[0].get_ylabel() for runs in ([trained], [bpe], [trained, bpe])]
    assert labels == ["loss (nats per character)", "loss (nats per token)", "loss (nats per token of each run)"]
