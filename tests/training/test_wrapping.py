"""What is applied to a model from outside changes no gradient."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY
from gradient_steps import prepare_steps
from lazy_module import LazyModule

import minigpt
from minigpt.config import Config
from minigpt.distributed.process_group import Processes
from minigpt.errors import ConfigError, DeviceError
from minigpt.model import build
from minigpt.model.loss import IGNORE_INDEX
from minigpt.runs.run import Run
from minigpt.training.loop import compute_gradients
from minigpt.training.precision import require_precision, resolve_precision

dynamo = LazyModule("torch._dynamo")
CONFIG = Config().override(vocab_size=11, block_size=8, n_embd=16, n_head=2, n_layer=3, batch_size=6)


def draw_batches(count: int, batch_size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of random tokens, the same each time."""
    rng = torch.Generator().manual_seed(2)
    tokens = [torch.randint(11, (batch_size, 9), generator=rng) for _ in range(count)]
    return [(idx[:, :8], idx[:, 1:]) for idx in tokens]


def find_gradients(config: Config, model: torch.nn.Module | None = None) -> tuple[list[torch.Tensor], float]:
    """The flat gradients of a step, and its loss; from the same weights and batches each time."""
    torch.manual_seed(1)
    batches = draw_batches(config.training.gradient_accumulation, config.training.batch_size)
    with prepare_steps(model or build(config.model).train(), config, *batches) as (wrapped, state):
        loss = compute_gradients(wrapped, state)
        return [flat.grad.clone() for flat in wrapped.parameters], loss


@pytest.mark.parametrize("implementation", ["fast", "lecture"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_activations_give_the_same_gradients_bit_for_bit(dropout: float, implementation: str) -> None:
    config = CONFIG.override(dropout=dropout, implementation=implementation)
    kept, loss = find_gradients(config)
    recomputed, loss_too = find_gradients(config.override(checkpoint_activations=True))
    assert loss == loss_too
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))
    assert all(gradient.any() for gradient in kept)


def test_with_recomputation_each_block_runs_twice() -> None:
    calls = []
    config = CONFIG.override(dropout=0.1)  # by autograd then, so that a hook is called
    model = build(config.model)
    for block in model.blocks:
        block.attention.register_forward_hook(lambda *_: calls.append(1))
    find_gradients(config.override(checkpoint_activations=True), model=model)
    assert len(calls) == 2 * CONFIG.model.n_layer
    with torch.no_grad():
        model(torch.zeros(1, 8, dtype=torch.int64))
    assert len(calls) == 3 * CONFIG.model.n_layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_accumulated_gradients_equal_those_of_one_large_batch(dtype: torch.dtype) -> None:
    small = CONFIG.override(gradient_accumulation=3, batch_size=4)
    model = build(CONFIG.model).to(dtype)
    accumulated, loss = find_gradients(small, copy.deepcopy(model))
    x, y = (torch.cat(parts) for parts in zip(*draw_batches(3, 4), strict=True))
    with prepare_steps(model, CONFIG, (x, y)) as (wrapped, state):
        assert compute_gradients(wrapped, state) == pytest.approx(loss)
        for a, flat in zip(accumulated, wrapped.parameters, strict=True):
            torch.testing.assert_close(a, flat.grad)


@dataclasses.dataclass(frozen=True)
class KnownCounts(Processes):
    """One of several processes, which knows the numbers of targets of all of them without asking."""

    totals: Iterator[int] = dataclasses.field(default_factory=lambda: iter(()))

    def sum(self, number: float) -> float:
        return next(self.totals, number)  # afterwards the losses, of this process alone


def draw_answers(learned: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 4 rows in which only so many targets are learned."""
    batches = []
    for (x, y), count in zip(draw_batches(len(learned), 4), learned, strict=True):
        is_learned = torch.arange(32).view(4, 8) % 8 * 4 + torch.arange(4)[:, None] < count  # some of each row
        batches.append((x, y.where(is_learned, IGNORE_INDEX)))
    return batches


@pytest.mark.parametrize("processes", [1, 2])
def test_answers_of_different_lengths_accumulate_to_the_gradients_of_one_large_batch(processes: int) -> None:
    learned = (1, 30, 7, 12)
    batches = draw_answers(learned)
    model = build(CONFIG.model).double()
    micro_steps = len(batches) // processes  # batch n of process p is n * processes + p
    totals = [sum(learned[n * processes : (n + 1) * processes]) for n in range(micro_steps)]
    config = CONFIG.override(gradient_accumulation=micro_steps, batch_size=4)
    averaged: list[torch.Tensor] = []
    for p in range(processes):
        known = KnownCounts(p, processes, totals=iter(totals))
        with prepare_steps(copy.deepcopy(model), config, *batches[p::processes], processes=known) as (wrapped, state):
            loss = compute_gradients(wrapped, state)
            gradients = [flat.grad / processes for flat in wrapped.parameters]  # as DDP does
        averaged = [a + b for a, b in zip(averaged, gradients, strict=True)] if averaged else gradients
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with prepare_steps(model, CONFIG, (x, y)) as (wrapped, state):
        expected = compute_gradients(wrapped, state)
        for a, flat in zip(averaged, wrapped.parameters, strict=True):
            torch.testing.assert_close(a, flat.grad)
    assert processes > 1 or loss == pytest.approx(expected)


def test_bf16_computes_in_bf16_and_keeps_float32_weights() -> None:
    exact, loss = find_gradients(CONFIG)
    rough, rough_loss = find_gradients(CONFIG.override(precision="bf16"))
    assert all(whole.dtype == torch.float32 for whole in rough)
    assert rough_loss == pytest.approx(loss, abs=0.02)
    assert rough_loss != loss
    for a, b in zip(exact, rough, strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_a_compiled_model_has_the_same_gradients() -> None:
    small = CONFIG.override(n_layer=1)  # the compiler takes seconds for each
    expected, loss = find_gradients(small)
    compiled, loss_too = find_gradients(small.override(compile=True))
    assert loss_too == pytest.approx(loss, abs=1e-5)
    for a, b in zip(expected, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_precision_is_what_the_processor_multiplies_fastest(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict, chosen: str, text_file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    auto = CONFIG.override(precision="auto", device="cpu")
    assert resolve_precision(auto).training.precision == chosen
    assert resolve_precision(auto.override(precision="fp32")).training.precision == "fp32"
    run = minigpt.train(data=text_file, out=tmp_path / "run", precision="auto", device="cpu", **TINY | {"max_iters": 2})
    assert Run.open(run.path).config.training.precision == chosen  # a run goes on as it began


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, command: Callable) -> None:
    for precision, device, words in (
        ("fp16", "cpu", "fp16 needs a CUDA GPU, and the device is 'cpu'"),
        ("fp16", "mps", "fp16 needs a CUDA GPU, and the device is 'mps'"),
        ("bf16", "mps", "bf16 needs a CPU or a CUDA GPU"),
    ):
        with pytest.raises(DeviceError, match=words):
            require_precision(precision, torch.device(device))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(DeviceError, match="this GPU cannot compute in bf16: choose precision='fp16' or 'fp32'"):
        require_precision("bf16", torch.device("cuda"))
    require_precision("bf16", torch.device("cpu"))
    require_precision("fp16", torch.device("cuda"))


def test_impossible_combinations_are_refused() -> None:
    for settings, words in (
        ({"architecture": "bigram", "checkpoint_activations": True}, "needs a model with blocks, and the bigram has"),
        ({"implementation": "lecture", "tied_head": True}, "lecture's implementation has no activation, qkv_bias"),
        ({"warmup_iters": 5000}, r"warmup_iters must be below max_iters, but 5,000 is not below 5,000"),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, bf16, fp16, not 'fp8'"),
        ({"compile": 1}, "compile must be true or false, not 1"),
        ({"gradient_accumulation": 0}, "gradient_accumulation must be"),
        ({"grad_clip": -1.0}, "grad_clip must be"),
    ):
        with pytest.raises(ConfigError, match=words):
            Config().override(**settings)


@pytest.mark.parametrize("settings", [{}, {"checkpoint_activations": True, "dropout": 0.1}], ids=str)
def test_after_training_nothing_is_left_on_the_model(settings: dict) -> None:
    config = CONFIG.override(**settings)
    model = build(config.model)
    idx = torch.zeros(2, 9, dtype=torch.int64)
    with prepare_steps(model, config, (idx[:, :8], idx[:, 1:])) as (wrapped, state):
        compute_gradients(wrapped, state)
        assert ("forward" in vars(model.blocks[0])) == config.training.checkpoint_activations
    assert not any("forward" in vars(part) for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        model(idx[:, :8], idx[:, 1:])[1].backward()


def test_a_missing_compiler_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    dynamo.reset()
    config = CONFIG.override(compile=True, n_embd=24, n_layer=1)
    idx = torch.zeros(6, 9, dtype=torch.int64)
    batch = (idx[:, :8], idx[:, 1:])
    with (
        prepare_steps(build(config.model), config, batch) as (wrapped, state),
        pytest.raises(DeviceError, match=r"compile does not work here .*: leave out compile=…"),
    ):
        compute_gradients(wrapped, state)


def test_tokens_per_step_include_accumulated_batches() -> None:
    assert CONFIG.override(gradient_accumulation=3).tokens_per_step == 3 * 6 * 8
