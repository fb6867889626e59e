"""What the pictures show: readable figures, marks and axes."""

from pathlib import Path

import numpy as np
import torch

from minigpt.finetuning.accuracy_log import AccuracyLog
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import Snapshot
from minigpt.studies.bit_depth import Depth, format_table
from minigpt.studies.look.attention import draw_attention
from minigpt.studies.look.curves import draw_curves
from minigpt.studies.look.memorization import make_memorization_page
from minigpt.studies.look.timeline import draw_timeline
from minigpt.studies.look.token_loss import make_token_loss_page
from minigpt.system.plotting import cut_to_width


def test_the_figure_of_a_short_bar_stands_beside_it() -> None:
    bars, _ = draw_timeline([Snapshot(0, 4.0, "a"), Snapshot(9, 0.1, "b")], "title").axes
    inside, beside = bars.texts
    assert (inside.get_text(), beside.get_text()) == ("4.00", "0.10")
    assert inside.get_position()[0] < 4.0 and inside.get_color() == "white"
    assert beside.get_position()[0] > 0.1 and beside.get_color() != "white"


def test_masked_cells_of_attention_differ_from_zero_weights() -> None:
    maps = torch.eye(3).expand(1, 1, 3, 3)
    shown = draw_attention(maps, "abc").axes[0].images[0]
    assert shown.get_array().mask.tolist() == np.triu(np.ones((3, 3), dtype=bool), 1).tolist()
    assert tuple(shown.get_cmap().get_bad()) != shown.get_cmap()(0.0)


def test_tasks_are_drawn_in_percent_and_curves_in_plain_numbers(trained: Run, tmp_path: Path) -> None:
    log = AccuracyLog(RunDirectory(tmp_path), trained.model, None, {"upper": []}, print)  # type: ignore[arg-type]
    log.steps, log.shares = [0, 500], {"upper": [0.0, 0.5]}
    [axes] = log.draw().axes
    assert (axes.get_ylabel(), list(axes.lines[0].get_ydata())) == ("right answers (%)", [0, 50])
    figure = draw_curves([trained])
    assert figure.axes[0].xaxis.get_major_formatter()(2_500_000) == "2,500,000"


def test_the_study_of_bits_prints_text_as_text_and_no_negative_zero() -> None:
    table = format_table([Depth(32, 1.5, "a\nb"), Depth(16, 1.49999, "c|d")])
    assert "| 16 | 1.5000 | +0.0000 |" in table
    assert table.endswith("32 bits:\n\na\nb\n\n16 bits:\n\nc|d")


def test_the_pages_find_the_direction_of_their_texts() -> None:
    assert '<pre dir="auto">' in make_token_loss_page("title", ["מ", "a"], [1.0])
    nothing = ("א", np.zeros(1, dtype=np.int64))
    assert make_memorization_page("title", nothing, nothing).count('<pre dir="auto">') == 2


def test_wide_characters_take_two_columns() -> None:
    assert cut_to_width("abcdef", 4) == "abcd"
    assert cut_to_width("a漢字漢", 4) == "a漢"
