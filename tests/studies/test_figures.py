"""The figures of the studies' results show what the tensors hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_process import run_code
from study_runs import make_study_run

from minigpt import studies
from minigpt.config import SamplingConfig
from minigpt.runs.run import Run
from minigpt.studies.next_token import SHOWN, TOP, NextTokenDistribution
from minigpt.tokenizers.char import CharTokenizer

TEXT = "be: to\nb"
LABELS = list("be:␣to¶b")
LONG = f"{TEXT}t" * 8  # longer than the block_size of `long_run`


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run("gpt", tmp_path_factory.mktemp("runs") / "gpt")


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_study_run("gpt", tmp_path_factory.mktemp("runs") / "long", block_size=64)


def read_labels(axis: Any) -> list[str]:
    """The labels of an axis at its ticks."""
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_figure_of_attention_has_the_weights_and_the_tokens(run: Run) -> None:
    maps = studies.attention_maps(run, TEXT)
    grid = [axes for axes in maps.plot().axes if axes.get_title()]
    assert [axes.get_title() for axes in grid] == [f"block {b}, head {h}" for b in (1, 2) for h in (1, 2)]
    for axes, weights in zip(grid, maps.flatten(0, 1), strict=True):
        shown = axes.images[0].get_array()
        assert np.array_equal(shown.filled(0), weights.tril().numpy())
    assert read_labels(grid[0].yaxis) == read_labels(grid[2].xaxis) == LABELS, "at the left and below"


def test_attention_maps_are_a_tensor_whose_parts_are_plain_tensors(run: Run) -> None:
    maps = studies.attention_maps(run, TEXT)
    assert isinstance(maps, torch.Tensor)
    for part in (maps[0], maps.sum(), maps + 1, torch.stack([maps, maps]), maps.clone()):
        assert type(part) is torch.Tensor
    assert maps.tokens == list(TEXT)


def test_a_map_of_many_tokens_has_positions_on_its_axes(long_run: Run) -> None:
    axes = studies.attention_maps(long_run, LONG).plot().axes[2]
    assert axes.images[0].get_array().shape == (64, 64)
    assert not {"␣", "¶"} & set(read_labels(axes.xaxis))


def test_a_figure_of_the_lens_has_the_most_likely_tokens_and_their_probabilities(run: Run) -> None:
    lens = studies.logit_lens(run, TEXT)
    axes = lens.plot().axes[0]
    probabilities, best = lens.logits.softmax(-1).max(-1)
    assert np.array_equal(axes.images[0].get_array(), probabilities.numpy())
    assert axes.images[0].origin == "lower"
    assert read_labels(axes.xaxis) == LABELS
    assert read_labels(axes.yaxis) == ["embedding", "block 0", "block 1"]
    tokens = [run.tokenizer.decode([i]).replace(" ", "␣").replace("\n", "¶") for i in best.flatten().tolist()]
    assert [text.get_text() for text in axes.texts] == tokens
    places = [text.get_position() for text in axes.texts]
    assert places == [(position, layer) for layer in range(3) for position in range(len(TEXT))]


def test_a_lens_over_a_long_text_shows_its_end_and_says_so(long_run: Run) -> None:
    lens = studies.logit_lens(long_run, LONG)
    axes = lens.plot().axes[0]
    assert np.array_equal(axes.images[0].get_array(), lens.logits[:, -32:].softmax(-1).amax(-1).numpy())
    assert "".join(read_labels(axes.xaxis)) == LONG[-32:].replace(" ", "␣").replace("\n", "¶")
    assert axes.get_title().endswith("(the last 32 of 64 positions)")


def test_a_figure_of_the_next_token_has_a_bar_for_each_probability(run: Run) -> None:
    expected = studies.next_token_distribution(run, TEXT, temperature=0.7, top_k=5)
    [axes] = expected.plot().axes
    values, ids = expected.probabilities.topk(TOP)
    names = [run.tokenizer.decode([i]).replace(" ", "␣").replace("\n", "¶") for i in ids.tolist()]
    assert read_labels(axes.yaxis) == names
    model, filtered = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert model == values.tolist()
    assert filtered == expected.filtered[ids].tolist()
    assert axes.yaxis_inverted(), "the most likely token is on top"
    assert axes.get_title() == "The next token after “be: to¶b”"
    assert f"model: {expected.entropy:.2f} bits" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_equal_distributions_have_one_row_of_bars_and_a_long_text_is_cut() -> None:
    logits, text = torch.tensor([2.0, 1.0]), "x$y^$" * 30
    expected = NextTokenDistribution.from_logits(logits, SamplingConfig(), text, CharTokenizer(["$", "^"]))
    assert expected._repr_png_(), "a dollar sign starts no formula"
    [axes] = expected.plot().axes
    assert len(axes.containers) == 1
    assert axes.get_title() == f"The next token after “…{text[-SHOWN:]}”"
    assert read_labels(axes.yaxis) == ["$", "^"]
    [axes] = NextTokenDistribution.from_logits(logits, SamplingConfig()).plot().axes
    assert read_labels(axes.yaxis) == ["#0", "#1"]


@pytest.mark.parametrize("study", [studies.attention_maps, studies.logit_lens, studies.next_token_distribution])
@pytest.mark.parametrize("kind", ["bpe", "sentencepiece", "short"])
def test_a_notebook_shows_a_picture(study: Any, kind: str, tmp_path: Path) -> None:
    result = study(make_study_run(kind, tmp_path / kind), "to be, or not to be")
    assert result._repr_png_().startswith(b"\x89PNG")


def test_matplotlib_is_imported_for_a_figure_alone(run: Run) -> None:
    run_code(f"""
import sys
for name in [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "minigpt")]:
    del sys.modules[name]
import minigpt
run = minigpt.load({str(run.path)!r})
for study in (minigpt.studies.attention_maps, minigpt.studies.logit_lens, minigpt.studies.next_token_distribution):
    study(run, {TEXT!r})
assert "matplotlib" not in sys.modules
minigpt.studies.logit_lens(run, {TEXT!r}).plot()
assert "matplotlib" in sys.modules
""")
