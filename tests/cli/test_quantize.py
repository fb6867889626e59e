"""`minigpt quantize`: a smaller run like any other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

import minigpt
from minigpt.runs.run import Run


@pytest.mark.parametrize("bits", [8, 4])
def test_a_smaller_run_with_nearly_the_same_loss(bits: int, trained: Run, command: Callable, tmp_path: Path) -> None:
    done = command("quantize", trained.path, "--bits", bits, "--out", "small", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loss_before"] == pytest.approx(trained.info.validation_loss, rel=1e-5)
    assert abs(found["loss_after"] - found["loss_before"]) < (0.002 if bits == 8 else 0.1)
    assert found["validation_loss"] == found["loss_after"]
    stored = safetensors.torch.load_file(tmp_path / "small" / "model.safetensors")
    assert (
        found["bytes_after"] == sum(t.numel() * t.element_size() for t in stored.values()) < found["bytes_before"] / 2
    )
    assert json.loads(command("eval", "small", "--json").stdout)["validation_loss"] == pytest.approx(
        found["loss_after"]
    )
    opened = minigpt.load(tmp_path / "small")
    assert opened.generate("GULL:", max_new_tokens=150, seed=1) == opened.generate("GULL:", max_new_tokens=150, seed=1)
    assert command("info", "small").returncode == 0
    assert command("sample", "small", "--max-new-tokens", "10").returncode == 0


def test_what_has_no_kernel_or_few_bits_already_is_refused(
    trained: Run, text_file: Path, command: Callable, tmp_path: Path
) -> None:
    def refused(*arguments: object) -> str:
        done = command(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]

    assert "there is no layer of 3 bits here: choose 8 or 4" in refused("quantize", trained.path, "--bits", 3)
    assert command("quantize", trained.path, "--out", "small").returncode == 0
    assert "quantized already" in refused("quantize", "small")
    assert "cannot be trained" in refused("finetune", "small", "--data", text_file)
    assert "train in full precision" in refused("train", "--data", text_file, "--config", "small/config.toml")
    tuned = command("finetune", "small", "--data", text_file, "--lora", "--max-iters", 5, "--out", "tuned", "--json")
    assert tuned.returncode == 0, tuned.stderr
    assert minigpt.load(tmp_path / "tuned").config.model.quantization == "none"
    weights = tmp_path / "small" / "model.safetensors"
    content = safetensors.torch.load_file(weights)
    content["blocks.0.ffwd.up.codes"] = content["blocks.0.ffwd.up.codes"][:-1].clone()
    safetensors.torch.save_file(content, weights)
    assert "blocks.0.ffwd.up.codes is U8 of shape" in refused("sample", "small")
