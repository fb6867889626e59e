"""The plan against real models: parameters, bytes and operations."""

import math

import pytest
import torch
from gradient_steps import prepare_steps
from lazy_module import LazyModule
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt.config import Config
from minigpt.errors import ConfigError
from minigpt.model import build, count_parameters
from minigpt.training.loop import compute_gradients, train_step
from minigpt.training.planning.machine import Machine
from minigpt.training.planning.memory_model import FLOAT, ParameterCounts, estimate_memory
from minigpt.training.planning.plan import (
    count_bytes_sent_per_step,
    count_flops_per_token,
    estimate_launch_seconds,
    plan,
)
from minigpt.training.precision import autocast
from minigpt.training.wrapping import wrap_model

mem_tracker = LazyModule("torch.distributed._tools.mem_tracker")  # imports PyTorch's compiler

GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
SMALL = Config().override(vocab_size=11, block_size=64, n_embd=32, n_head=4, n_layer=3, batch_size=4, device="cpu")
SMALL = SMALL.override(compiled_loops="off")
WIDE_VOCABULARY = {"vocab_size": 3000, "batch_size": 2}
LARGE = {"n_layer": 12, "n_embd": 768, "n_head": 12, "block_size": 1024, "vocab_size": 50257, **GPT2}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tied_head": True},
        {"qkv_bias": True},
        {"activation": "gelu"},
        GPT2,
        {"n_embd": 7, "n_head": 1, "n_layer": 1},
    ],
)
def test_planned_parameters_are_those_of_the_built_model(settings: dict) -> None:
    model = SMALL.override(**settings).model
    built = build(model)
    assert ParameterCounts.from_config(model).total == count_parameters(built)
    assert ParameterCounts.from_config(model).block == count_parameters(built.blocks[0])


def test_gpt2_has_124_million_parameters() -> None:
    assert ParameterCounts.from_config(Config().override(**LARGE).model).total == 124_439_808


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        GPT2,
        {"dropout": 0.1},
        {"precision": "bf16"},
        {"precision": "bf16", **GPT2},
        {"n_head": 1},
    ],
)
def test_planned_activations_are_within_20_percent_of_what_autograd_saves(settings: dict, recompute: bool) -> None:
    config = SMALL.override(checkpoint_activations=recompute, **settings)
    model = build(config.model).train()
    saved: dict[int, int] = {}  # bytes by address, so that a tensor saved twice counts once
    x, y = torch.randint(11, (2, 4, 64))
    with wrap_model(model, config) as wrapped:
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        matrices = {shape for p in model.parameters() if p.ndim == 2 for shape in (p.shape, p.mT.shape)}

        def save(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters and tensor.shape not in matrices:  # 16-bit copies are weights
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(save, lambda tensor: tensor), autocast(wrapped.device, config.training.precision):
            wrapped.module(x, y)
    assert estimate_memory(config).activations == pytest.approx(sum(saved.values()), rel=0.2)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("settings", [{}, GPT2, {"dropout": 0.1}, WIDE_VOCABULARY, GPT2 | WIDE_VOCABULARY])
def test_planned_memory_is_within_20_percent_of_the_tensors_peak(settings: dict, recompute: bool) -> None:
    config = SMALL.override(checkpoint_activations=recompute, **settings)
    idx = torch.randint(11, (config.training.batch_size, 64))
    tracker = mem_tracker.MemTracker()
    with tracker, prepare_steps(build(config.model).train(), config, (idx, idx)) as (wrapped, state):
        for _ in range(2):
            tracker.reset_mod_stats()
            train_step(wrapped, state)
    measured = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert estimate_memory(config).total == pytest.approx(measured, rel=0.2)


def test_ddp_copies_the_model_to_each_gpu_and_fsdp_splits_it() -> None:
    config = SMALL.override(batch_size=16)
    P = ParameterCounts.from_config(config.model)
    single, ddp, fsdp = estimate_memory(config), estimate_memory(config, 4, "ddp"), estimate_memory(config, 4, "fsdp")
    assert single.weights == ddp.weights == ddp.exchange == FLOAT * P.total
    assert fsdp.weights == fsdp.gradients == fsdp.optimizer // 2 == FLOAT * math.ceil(P.total / 4)
    assert ddp.activations == single.activations // 4  # four of sixteen windows
    assert fsdp.exchange >= FLOAT * (P.outside + 2 * P.block)
    assert estimate_memory(config.override(batch_size=13), 4, "ddp") == ddp  # the largest share counts


def test_bytes_sent_are_those_of_ring_collectives() -> None:
    P = ParameterCounts.from_config(SMALL.model)
    assert count_bytes_sent_per_step(SMALL, 1, "single") == 0
    assert count_bytes_sent_per_step(SMALL, 2, "ddp") == FLOAT * P.total
    assert count_bytes_sent_per_step(SMALL, 4, "fsdp") == FLOAT * (2 * P.total + P.blocks) * 3 // 4
    often = SMALL.override(gradient_accumulation=3)
    assert count_bytes_sent_per_step(often, 2, "ddp") == FLOAT * P.total
    assert count_bytes_sent_per_step(often, 4, "fsdp") == 3 * count_bytes_sent_per_step(SMALL, 4, "fsdp")


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_planned_operations_are_those_that_pytorch_counts(dropout: float, recomputed: bool) -> None:
    config = SMALL.override(precision="bf16", checkpoint_activations=recomputed, dropout=dropout, **GPT2)
    idx = torch.randint(11, (4, 64))
    with (
        prepare_steps(build(config.model).train(), config, (idx, idx)) as (wrapped, state),
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),  # the counter does not know the fused kernel
    ):
        compute_gradients(wrapped, state)
    assert count_flops_per_token(config.model, recomputed) * idx.numel() == counter.get_total_flops()


def test_the_plan_of_gpt2_on_eight_gpus() -> None:
    config = Config().override(**LARGE, batch_size=64, gradient_accumulation=8, precision="bf16", max_iters=19073)
    planned = plan(config, Machine(gpus=8))
    assert planned.tokens_per_step == 2**19
    assert planned.flops_per_token == 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 1024 * 768
    assert [(strategy.parallel, strategy.recompute) for strategy in planned.strategies] == [
        (parallel, recompute) for parallel in ("ddp", "fsdp") for recompute in (False, True)
    ]
    assert planned.strategies[0].seconds == pytest.approx(planned.tokens * planned.flops_per_token / (8 * 0.4 * 989e12))
    ddp, ddp_recomputed, fsdp, fsdp_recomputed = (strategy.memory.total for strategy in planned.strategies)
    assert ddp > fsdp > fsdp_recomputed
    assert ddp > ddp_recomputed > fsdp_recomputed
    assert [strategy.parallel for strategy in plan(config, Machine()).strategies] == ["single", "single"]


def test_another_model_and_more_gpus_than_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 windows cannot be shared by 5 GPUs: raise batch_size"):
        plan(SMALL, Machine(gpus=5))
    for settings in ({"architecture": "bigram"}, {"implementation": "lecture"}):
        with pytest.raises(ConfigError, match=r"a GPT of model/gpt\.py only"):
            plan(SMALL.override(**settings), Machine())


def test_a_small_model_takes_at_least_the_time_to_launch_its_kernels() -> None:
    config = Config.from_preset("lecture").override(vocab_size=65, max_iters=5000, precision="bf16")
    [strategy, _] = plan(config, Machine(gpus=1)).strategies
    assert strategy.seconds == estimate_launch_seconds(config) == pytest.approx(5000 * 250 * 5e-6)
    often = config.override(gradient_accumulation=4)
    assert plan(often, Machine(gpus=1)).strategies[0].seconds == pytest.approx(4 * strategy.seconds)
