"""What is planned, against what is there: parameters, bytes and operations counted on real models."""

import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt.config import Config
from minigpt.errors import ConfigError
from minigpt.model import build, count_parameters
from minigpt.training.gradients import Gradients
from minigpt.training.machine import Machine
from minigpt.training.memory_model import FLOAT, memory, moments, parameters, sizes
from minigpt.training.optimizer import Optimizer
from minigpt.training.plan import bytes_sent_per_step, flops_per_token, plan

GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
SMALL = Config().override(vocab_size=11, block_size=64, n_embd=32, n_head=4, n_layer=3, batch_size=4, device="cpu")
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
def test_the_parameters_are_those_of_the_model(settings: dict) -> None:
    model = SMALL.override(**settings).model
    built = build(model)
    assert parameters(model).total == count_parameters(built)
    assert parameters(model).block == count_parameters(built.blocks[0])


def test_gpt2_has_124_million_parameters() -> None:
    assert parameters(Config().override(**LARGE).model).total == 124_439_808


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        GPT2,
        {"dropout": 0.1},
        {"precision": "bf16"},
        {"precision": "bf16", **GPT2},
        {"compile": True, "n_head": 1},  # by autograd, with a ReLU; it is not compiled here
    ],
)
def test_kept_activations_are_to_the_byte_what_autograd_saves(settings: dict, recomputed: bool) -> None:
    config = SMALL.override(checkpoint_activations=recomputed, **settings)
    made = Gradients(build(config.model).train(), config)
    held = {p.untyped_storage().data_ptr() for p in made.model.parameters()}
    saved = {}  # by where it lies, so that what is saved twice counts once

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in held:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x, y = torch.randint(11, (2, 4, 64))
    with saved_tensors_hooks(save, lambda tensor: tensor), torch.autocast("cpu", made.dtype, made.dtype is not None):
        made.model(x.clone(), y.clone())
    s = sizes(config, 1)
    _, kept, _ = moments(config, 1, "alone")["loss"]
    of_the_loss = s.loss + FLOAT  # its probabilities and its divisor, in place of the logits
    assert sum(t.untyped_storage().nbytes() for t in saved.values()) == kept - s.logits + of_the_loss


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("settings", [{}, GPT2, {"dropout": 0.1}, WIDE_VOCABULARY, GPT2 | WIDE_VOCABULARY])
def test_memory_is_what_a_step_holds(settings: dict, recomputed: bool) -> None:
    config = SMALL.override(checkpoint_activations=recomputed, **settings)
    idx = torch.randint(11, (config.training.batch_size, 64))
    tracker = MemTracker()
    with tracker:
        made = Gradients(build(config.model).train(), config)
        optimizer = Optimizer(made.parameters, config.training, made.scaler)
        for step in range(2):
            tracker.reset_mod_stats()
            made.add(idx, idx)
            optimizer.step(step)
    measured = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert memory(config, 1, "alone").total == pytest.approx(measured, rel=0.05)


def test_sharing_out() -> None:
    config = SMALL.override(batch_size=16)
    P = parameters(config.model)
    alone, ddp, fsdp = (memory(config, *way) for way in ((1, "alone"), (4, "ddp"), (4, "fsdp")))
    assert alone.weights == ddp.weights == ddp.exchange == FLOAT * P.total
    assert fsdp.weights == fsdp.gradients == fsdp.averages // 2 == FLOAT * math.ceil(P.total / 4)
    assert ddp.activations == alone.activations // 4  # four of sixteen windows
    assert fsdp.exchange >= FLOAT * (P.outside + 2 * P.block)
    assert memory(config.override(batch_size=13), 4, "ddp") == ddp  # the largest share counts


def test_sent() -> None:
    P = parameters(SMALL.model)
    assert bytes_sent_per_step(SMALL, 1, "alone") == 0
    assert bytes_sent_per_step(SMALL, 2, "ddp") == FLOAT * P.total
    assert bytes_sent_per_step(SMALL, 4, "fsdp") == FLOAT * (2 * P.total + P.blocks) * 3 // 4
    often = SMALL.override(gradient_accumulation=3)
    assert bytes_sent_per_step(often, 2, "ddp") == FLOAT * P.total
    assert bytes_sent_per_step(often, 4, "fsdp") == 3 * bytes_sent_per_step(SMALL, 4, "fsdp")


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_operations_are_those_pytorch_counts(dropout: float, recomputed: bool) -> None:
    config = SMALL.override(precision="bf16", checkpoint_activations=recomputed, dropout=dropout, **GPT2)
    made = Gradients(build(config.model).train(), config)
    idx = torch.randint(11, (4, 64))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel it does not know
        made.add(idx, idx)
    assert flops_per_token(config.model, recomputed) * idx.numel() == counter.get_total_flops()


def test_a_plan() -> None:
    config = Config().override(**LARGE, batch_size=64, gradient_accumulation=8, precision="bf16", max_iters=19073)
    planned = plan(config, Machine(gpus=8))
    assert planned.tokens_per_step == 2**19
    assert planned.flops_per_token == 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 1024 * 768
    assert [(way.sharing, way.recomputed) for way in planned.ways] == [
        (sharing, recomputed) for sharing in ("ddp", "fsdp") for recomputed in (False, True)
    ]
    assert planned.ways[0].seconds == pytest.approx(planned.tokens * planned.flops_per_token / (8 * 0.4 * 989e12))
    ddp, ddp_recomputed, fsdp, fsdp_recomputed = (way.memory.total for way in planned.ways)
    assert ddp > fsdp > fsdp_recomputed
    assert ddp > ddp_recomputed > fsdp_recomputed
    assert [way.sharing for way in plan(config, Machine()).ways] == ["alone", "alone"]


def test_model_of_another_kind_or_more_gpus_than_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 cannot be shared out over 5 GPUs: raise it"):
        plan(SMALL, Machine(gpus=5))
    for settings in ({"architecture": "bigram"}, {"implementation": "lecture"}):
        with pytest.raises(ConfigError, match=r"a GPT as model/gpt\.py makes it"):
            plan(SMALL.override(**settings), Machine())
