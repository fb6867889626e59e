"""The forecast: it changes nothing, adds up, and is compared with the result."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, TINY_FLAGS

import minigpt
from minigpt.config import Config
from minigpt.data.dataset import Dataset
from minigpt.errors import DeviceError
from minigpt.model import build
from minigpt.model.ngram import NGramModel
from minigpt.training.planning.forecast import (
    Forecast,
    Timings,
    add_up_seconds,
    divide_budget,
    forecast_training,
)
from minigpt.training.planning.loss_forecast import measure_trigram_loss, predict_loss
from minigpt.training.train import forecast


def test_a_forecast_changes_no_weight_no_batch_and_no_random_number() -> None:
    config = Config().override(vocab_size=9, dropout=0.3, **TINY)
    model = build(config.model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dataset, untouched = (Dataset(torch.arange(2000) % 9, config) for _ in range(2))
    torch.manual_seed(4)
    state = torch.get_rng_state()
    predicted = forecast_training(model, dataset, config)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(dataset.get_batch("train")[0], untouched.get_batch("train")[0])
    assert 0 < predicted.seconds < 60
    assert predicted.memory > 10_000_000


def test_a_time_budget_becomes_a_number_of_steps(text_file: Path, tmp_path: Path) -> None:
    timings = Timings(first_step=0.5, step=0.06)
    assert divide_budget(0.02, timings, compiled=False) == 20  # 1.2 seconds of 0.06 each
    assert divide_budget(0.02, timings, compiled=True) == 12  # the first step compiles
    assert divide_budget(1e-6, timings, compiled=False) == 1
    run = minigpt.train(data=text_file, out=tmp_path / "run", **TINY | {"max_minutes": 1e-3})
    assert run.config.training.max_iters == run.info.step
    assert run.config.training.max_minutes is None
    assert minigpt.load(run.path).config == run.config


def test_the_forecast_seconds_are_the_sum_of_their_parts() -> None:
    settings = TINY | {"max_iters": 90, "eval_interval": 20, "eval_windows": 10, "snapshots": 2}
    config = Config().override(vocab_size=9, **settings)
    timings = Timings(first_step=0.5, step=0.002, evaluation=0.5, snapshot=2.5)
    evaluations = 6  # after 0, 20, 40, 60, 80 and 90 steps
    exact = 200 / (2 * 10 * 16)  # the validation split, in evaluations of 10 windows of 16 of each split
    expected = 90 * 0.002 + 0.5 * (evaluations + exact) + 2 * 2.5
    assert add_up_seconds(timings, config, validation_tokens=200) == pytest.approx(expected)
    assert add_up_seconds(timings, config.override(compile=True), 200) == pytest.approx(expected + 0.5)


def test_the_forecast_as_text_and_compared_with_the_result() -> None:
    predicted = Forecast(seconds=100.0, memory=512_000_000, loss=(1.7, 1.9))
    assert str(predicted) == "about 1:40, 512 MB of memory, a validation loss of 1.70 to 1.90"
    assert str(Forecast(3.0, None, None)) == "about 0:03"
    assert predicted.compare(125.0, 1.8) == (
        "forecast 1:40, it took 2:05, 25% more; final loss 1.80 (forecast 1.70 to 1.90)"
    )
    assert "10% less; final loss 1.60 (forecast" in predicted.compare(90.0, 1.6)
    assert Forecast(0.1, None, None).compare(0.4, 1.6) == "forecast 0:00, it took 0:00"


SHAPE = {"n_embd": 64, "n_head": 4, "n_layer": 4, "block_size": 32, "batch_size": 16}


def create_dataset(config: Config, random: float = 0.42, length: int = 120_000) -> Dataset:
    """A dataset in which this share of the tokens is random; the others are 0. With 30 tokens, 0.42 gives 2.0 nats."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(config.model.vocab_size, (length,), generator=rng)
    return Dataset(ids * (torch.rand(length, generator=rng) < random), config)


def test_the_trigram_loss_of_random_tokens_is_their_entropy() -> None:
    config = Config().override(vocab_size=8, **SHAPE)
    ids = torch.randint(8, (300_000,), generator=torch.Generator().manual_seed(0))
    assert measure_trigram_loss(Dataset(ids, config), 8) == pytest.approx(math.log(8), abs=0.01)


def test_the_trigram_loss_is_that_of_the_model_fitted_to_the_training_split(text: str) -> None:
    config = Config().override(vocab_size=128, **SHAPE)
    dataset = Dataset([min(ord(c), 127) for c in text], config)
    expected = NGramModel.fit(dataset.train, 128, 3).token_losses(dataset.val).mean()
    assert measure_trigram_loss(dataset, 128) == pytest.approx(expected.item())


def test_the_forecast_of_the_loss_is_a_tenth_around_the_formula() -> None:
    config = Config().override(vocab_size=30, **SHAPE)
    dataset = create_dataset(config)
    low, high = predict_loss(dataset, config.override(max_iters=1000))
    weights = 4 * 12 * 64**2 + 2 * 30 * 64
    ratio = 0.784 / weights**0.1 + 5.64 / (1000 * 16 * 32) ** 0.15
    trigram_loss = measure_trigram_loss(dataset, 30)
    assert (low, high) == pytest.approx((0.9 * ratio * trigram_loss, 1.1 * ratio * trigram_loss))


@pytest.mark.parametrize(
    ("settings", "random", "length"),
    [
        ({"architecture": "bigram"}, 0.42, 120_000),
        ({"optimizer": "muon"}, 0.42, 120_000),
        ({"dropout": 0.5}, 0.42, 120_000),
        ({"learning_rate": 0.1}, 0.42, 120_000),
        ({"n_embd": 4, "n_layer": 1}, 0.42, 120_000),
        ({"max_iters": 100}, 0.42, 120_000),  # it reads 51,200 characters
        ({"max_iters": 2000}, 0.42, 120_000),  # it reads the text nine times
        ({}, 0.42, 90_000),
        ({}, 0.15, 120_000),  # 0.9 nats, as of a log or a table
        ({}, 0.8, 120_000),  # 3.1 nats
    ],
)
def test_a_training_unlike_those_of_the_fit_gets_no_loss_forecast(settings: dict, random: float, length: int) -> None:
    config = Config().override(vocab_size=30, max_iters=1000, eval_interval=1000, **SHAPE)
    assert predict_loss(create_dataset(config), config)
    assert predict_loss(create_dataset(config, random, length), config.override(**settings)) is None


def test_train_forecast_trains_nothing(command: Callable, text_file: Path, tmp_path: Path) -> None:
    done = command("train", "--data", text_file, "--forecast", *TINY_FLAGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("about 0:0")
    assert "MB of memory" in done.stdout
    assert not (tmp_path / "runs").exists()
    content = json.loads(command("train", "--data", text_file, "--forecast", "--json", *TINY_FLAGS).stdout)
    assert content.keys() == {"seconds", "memory_bytes", "validation_loss_from", "validation_loss_to"}


def test_train_prints_the_forecast_before_and_the_comparison_after(
    text_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    minigpt.train(data=text_file, out=tmp_path / "run", **TINY)
    said = capfd.readouterr().err
    assert "\ntakes  about 0:0" in said
    assert "it took " in said.splitlines()[-1]


def test_a_precision_that_the_device_lacks_cannot_be_forecast(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="fp16 needs a CUDA GPU"):
        forecast(Config().override(precision="fp16", device="cpu", **TINY), text_file)
    with pytest.raises(DeviceError, match="fp16 needs a CUDA GPU"):
        minigpt.train(data=text_file, out=tmp_path / "run", precision="fp16", device="cpu", **TINY)
    assert not (tmp_path / "run").exists()
