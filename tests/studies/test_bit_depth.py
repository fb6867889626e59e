"""The study of bits per weight."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt.model.quantization import dequantize_nf4, quantize_nf4
from minigpt.runs.run import Run
from minigpt.studies.bit_depth import DEPTHS, measure_bit_depths, round_weight


def test_fewer_bits_round_more_and_four_bits_are_nf4() -> None:
    torch.manual_seed(0)
    weight = torch.randn(33, 70)
    errors = [float((round_weight(weight, bits) - weight).pow(2).mean()) for bits in DEPTHS]
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert torch.equal(round_weight(weight, 4), dequantize_nf4(*quantize_nf4(weight), weight.shape))
    assert len(round_weight(weight[:1, :64], 2).unique()) <= 4
    assert len(round_weight(weight[:1, :64], 3).unique()) <= 8


def test_the_study_does_not_change_the_run(trained: Run) -> None:
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    depths = measure_bit_depths(trained, "GULL:")
    assert [depth.bits for depth in depths] == list(DEPTHS)
    assert depths[0].loss == pytest.approx(trained.info.validation_loss, rel=1e-6)
    assert all(depth.text.startswith("GULL:") for depth in depths)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.model.state_dict().items())


def test_the_command_writes_the_picture_and_prints_the_figures(trained: Run, command: Callable, tmp_path: Path) -> None:
    done = command("quantize", trained.path, "--study", "--out", "bits.png", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["depths"]) == len(DEPTHS)
    assert (tmp_path / "bits.png").read_bytes().startswith(b"\x89PNG")
