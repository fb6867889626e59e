"""Whatever the caller has set in PyTorch, a training and an opened run are the same, and the settings stay."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from conftest import TINY

import minigpt
from minigpt.runs.run import Run


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_cache_enabled()


@contextmanager
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield
        assert not torch.is_grad_enabled()


@contextmanager
def inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield
        assert torch.is_inference_mode_enabled()


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": no_grad,
    "inference_mode": inference_mode,
    "autocast": autocast,
}
QUICK = {**TINY, "max_iters": 4, "eval_interval": 4, "snapshots": 1}


@pytest.fixture(params=SETTINGS)
def caller(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager]:
    return SETTINGS[request.param]


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def plain(request: pytest.FixtureRequest, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a caller who has set nothing."""
    out = tmp_path_factory.mktemp("plain") / "run"
    return minigpt.train(data=text_file, out=out, precision=request.param, device="cpu", **QUICK)


def test_a_training_has_the_same_bits(
    caller: Callable[[], AbstractContextManager], plain: Run, text_file: Path, tmp_path: Path
) -> None:
    with caller():
        run = minigpt.train(
            data=text_file, out=tmp_path / "run", precision=plain.config.training.precision, device="cpu", **QUICK
        )
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], tensor), name
    assert run.info.validation_loss == plain.info.validation_loss


def test_a_run_is_opened_and_writes_the_same_text(caller: Callable[[], AbstractContextManager], plain: Run) -> None:
    plain_loss = plain.loss("the sea")
    with caller():
        run = minigpt.load(plain.path)
        assert run.loss("the sea") == plain_loss
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert run.generate(seed=1, max_new_tokens=20) == plain.generate(seed=1, max_new_tokens=20)


def test_a_training_leaves_the_random_numbers_of_the_caller(text_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    minigpt.train("bigram", data=text_file, out=tmp_path / "run", device="cpu", max_iters=1, snapshots=0)
    assert torch.equal(torch.rand(3), expected)
