"""Loss and gradients of the compiled training loops, against autograd."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import TINY
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import minigpt
from minigpt.acceleration import accelerate, choose_training_loops, enter_loop_step
from minigpt.config import Config
from minigpt.finetuning.lora import apply_lora
from minigpt.kernels.training_loops import CompiledGPT
from minigpt.model import build
from minigpt.model.loss import IGNORE_INDEX
from minigpt.model.quantization import quantize_layers
from minigpt.training.wrapping import WrappedModel, wrap_model

V = 11
ON = {"compiled_loops": "on", "vocab_size": V}
SHAPES = [
    {},
    {"qkv_bias": True, "tied_head": True, "activation": "gelu"},
    {"n_embd": 12, "n_head": 3, "block_size": 7, "n_layer": 3, "activation": "gelu_exact"},
    {"n_embd": 1, "n_head": 1, "block_size": 1, "n_layer": 1},
    {"n_embd": 40, "n_head": 2, "block_size": 150, "n_layer": 1, "vocab_size": 70},
]


@pytest.fixture
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_pair(**shape: object) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A plain model, and the same with the compiled loops."""
    config = Config().override(**{**ON, **shape})
    torch.manual_seed(0)
    plain = build(config.model)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    fast = copy.deepcopy(plain)
    assert "training_loops" in accelerate(fast, config)
    return plain, fast


def make_batch(rows: int, length: int, vocab_size: int = V) -> tuple[torch.Tensor, torch.Tensor]:
    idx = torch.randint(vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(length))
    return idx[:, :-1], idx[:, 1:]


def compute(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
    """The loss, and the gradients of twice the loss."""
    model.zero_grad()
    _, loss = model(*batch)
    (2 * loss).backward()
    return loss.item(), [p.grad for p in model.parameters()]


def require_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours.to(theirs.dtype), theirs, rtol=1e-4, atol=1e-5 * max(1, float(theirs.abs().max()))
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_logits_and_every_gradient_are_autograds(shape: dict, threads: int, restore_threads: None) -> None:
    torch.set_num_threads(threads)
    plain, fast = make_pair(**shape)
    exact, T = copy.deepcopy(plain).double(), plain.config.block_size
    for rows, length in {(1, T), (3, T // 2 + 1), (5, 1), (5, T)}:
        batch = make_batch(rows, length, plain.config.vocab_size)
        (loss, expected), (found_loss, found) = compute(exact, batch), compute(fast, batch)
        assert found_loss == pytest.approx(loss, rel=1e-5)
        require_close(found, expected)
        torch.testing.assert_close(fast(*batch)[0], plain(*batch)[0], rtol=1e-4, atol=1e-4)


def test_the_same_threads_give_the_same_bits_and_any_number_of_them_the_same_gradients(restore_threads: None) -> None:
    _, fast = make_pair()
    batch, runs = make_batch(7, 32), []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        runs.append([gradient.clone() for gradient in compute(fast, batch)[1]])
    assert all(torch.equal(a, b) for a, b in zip(runs[1], runs[2], strict=True))
    require_close(runs[0], runs[1])
    require_close(runs[3], runs[1])


def test_two_losses_may_wait_for_their_backward_passes() -> None:
    plain, fast = make_pair()
    first, second = make_batch(2, 9), make_batch(4, 20)
    gradients = []
    for model in (plain, fast):
        losses = [model(*batch)[1] for batch in (first, second)]
        (losses[1] + 3 * losses[0]).backward()
        gradients.append([p.grad for p in model.parameters()])
    require_close(gradients[1], gradients[0])


def test_in_evaluation_mode_pytorch_computes_and_the_logits_have_gradients() -> None:
    _, fast = make_pair()
    logits, loss = fast(*make_batch(2, 9))
    assert not logits.requires_grad
    logits, loss = fast.eval()(*make_batch(2, 9))
    assert logits.requires_grad
    assert "Step" not in type(loss.grad_fn).__name__


def test_the_loops_keep_their_threads_while_pytorch_has_one(restore_threads: None) -> None:
    torch.set_num_threads(2)
    _, fast = make_pair()
    batch = make_batch(5, 12)
    expected = [gradient.clone() for gradient in compute(fast, batch)[1]]
    with enter_loop_step(adds_gradients=False):
        assert torch.get_num_threads() == 1
        assert all(torch.equal(a, b) for a, b in zip(compute(fast, batch)[1], expected, strict=True))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("adapters", [False, True])
def test_within_a_step_the_loops_add_to_the_gradients_what_autograd_would_add(adapters: bool) -> None:
    batches, sums = [make_batch(2, 9), make_batch(4, 20)], []
    for adds_gradients in (False, True):
        _, fast = make_pair()
        if adapters:
            torch.manual_seed(1)
            apply_lora(fast, rank=2)
        with wrap_model(fast, Config().override(**ON)), enter_loop_step(adds_gradients):
            losses = [fast(*batch)[1] for batch in batches]
            losses[1].backward()
            (0.3 * losses[0]).backward()
            sums.append({name: p.grad.clone() for name, p in fast.named_parameters() if p.requires_grad})
    assert all(torch.equal(sums[0][name], gradient) for name, gradient in sums[1].items())
    assert len(sums[1]) == (32 if adapters else 50)


def test_within_a_step_a_hook_of_a_parameter_sees_its_gradient() -> None:
    _, fast = make_pair()
    seen: list[torch.Tensor] = []
    with wrap_model(fast, Config().override(**ON)), enter_loop_step(adds_gradients=True):
        fast.blocks[0].ffwd.up.weight.register_hook(seen.append)
        fast.blocks[1].ffwd.up.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad))
        fast(*make_batch(2, 9))[1].backward()
        assert len(seen) == 2
        assert all(bool(gradient.any()) for gradient in seen)
        assert torch.equal(seen[0], fast.blocks[0].ffwd.up.weight.grad)


def test_ddp_gets_the_gradients_of_a_step_in_the_loops() -> None:
    _, fast = make_pair()
    averaged: list[int] = []

    def average(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        averaged.append(len(bucket.gradients()))
        return default_hooks.allreduce_hook(dist.group.WORLD, bucket)

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        module = DistributedDataParallel(fast)
        module.register_comm_hook(None, average)
        wrapped = WrappedModel(module, module, [*fast.parameters()], torch.device("cpu"), ["training_loops"])
        for p in fast.parameters():
            p.grad = torch.zeros_like(p)
        with wrapped.enter_step():
            wrapped.forward(*make_batch(2, 9))[1].backward()
    finally:
        dist.destroy_process_group()
    assert sum(averaged) == 50


def test_a_loss_has_one_backward_pass() -> None:
    _, fast = make_pair()
    _, loss = fast(*make_batch(2, 9))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


def test_a_weight_that_is_not_a_number_gives_a_loss_that_is_not_one() -> None:
    _, fast = make_pair()
    with torch.no_grad():
        fast.blocks[1].ffwd.up.weight[3, 5] = float("nan")
    assert torch.isnan(fast(*make_batch(2, 9))[1])


def test_ignored_targets_do_not_count_and_ids_outside_the_vocabulary_are_refused() -> None:
    plain, fast = make_pair()
    x, y = make_batch(3, 9)
    y = y.clone()
    y[0, :5] = IGNORE_INDEX
    (loss, expected), (found_loss, found) = compute(plain, (x, y)), compute(fast, (x, y))
    assert found_loss == pytest.approx(loss, rel=1e-5)
    require_close(found, expected)
    with pytest.raises(IndexError):
        fast(x + V, y)


def test_hooks_are_left_to_pytorch_and_frozen_weights_get_no_gradient() -> None:
    _, fast = make_pair()
    x, y = make_batch(3, 9)
    calls: list[int] = []
    handle = fast.blocks[0].ffwd.up.register_forward_hook(lambda *_: calls.append(1))
    fast(x, y)
    assert calls == [1]
    handle.remove()
    fast.ln_f.weight.requires_grad_(False)
    _, loss = fast(x, y)
    assert "Step" in type(loss.grad_fn).__name__
    loss.backward()
    assert fast.ln_f.weight.grad is None


@pytest.mark.parametrize(
    ("options", "quantization", "in_loops"),
    [
        ({}, None, True),
        ({"dora": True}, None, True),
        ({}, "nf4", True),
        ({"targets": ["qkv"]}, "nf4", False),  # the other layers are in NF4, without an adapter
        ({"dropout": 0.5}, None, False),
    ],
    ids=["lora", "dora", "qlora", "qlora of some layers", "dropout"],
)
def test_adapters_get_the_gradients_of_autograd(options: dict, quantization: str | None, in_loops: bool) -> None:
    plain, fast = make_pair(n_embd=16)
    if quantization is not None:
        for model in (plain, fast):
            quantize_layers(model, quantization)
    gradients, losses, (x, y) = [], [], make_batch(3, 9)
    for model in (plain, fast):
        torch.manual_seed(1)
        apply_lora(model, rank=2, **options)
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                torch.nn.init.normal_(parameter, std=0.2)
        _, loss = model(x, y)
        loss.backward()
        losses.append(loss)
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert ("Step" in type(losses[1].grad_fn).__name__) == in_loops
    require_close(gradients[1], gradients[0])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "on"),
        ({"activation": "gelu", "tied_head": True}, "on"),
        ({"optimizer": "muon", "grad_clip": 1.0, "gradient_accumulation": 2}, "on"),
        ({"dropout": 0.1}, "off"),
        ({"n_embd": 132}, "off"),
        ({"block_size": 257}, "off"),
        ({"precision": "bf16"}, "off"),
        ({"compile": True}, "off"),
        ({"checkpoint_activations": True}, "off"),
        ({"parallel": "fsdp"}, "off"),
        ({"implementation": "lecture"}, "off"),
        ({"architecture": "modern"}, "off"),
    ],
    ids=str,
)
def test_the_loops_train_what_they_know(settings: dict, expected: str) -> None:
    config = Config().override(**{**ON, **settings})
    assert choose_training_loops(config, "cpu") == expected
    assert choose_training_loops(config, "cuda") == "off"
    model = build(config.model)
    assert ("training_loops" in accelerate(model, config)) == (expected == "on")
    assert (type(model) is CompiledGPT) == (expected == "on")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "on"),  # the lecture preset's 5,000 steps
        ({"max_iters": 1000}, "off"),
        ({"max_iters": 1000, "batch_size": 64}, "on"),
        ({"max_minutes": 1.0}, "on"),
        ({"max_minutes": 0.1}, "off"),
        ({"compiled_loops": "off"}, "off"),
    ],
    ids=str,
)
def test_a_training_shorter_than_the_compilation_is_left_to_pytorch(settings: dict, expected: str) -> None:
    assert choose_training_loops(Config().override(**settings), "cpu") == expected


def test_a_wrapped_model_keeps_its_gradients_in_flat_memory() -> None:
    plain, fast = make_pair()
    batch, config = make_batch(4, 12), Config().override(**ON)
    with wrap_model(fast, config) as wrapped:
        assert "training_loops" in wrapped.kernels
        _, loss = wrapped.forward(*batch)
        loss.backward()
        total = sum(float(p.grad.square().sum()) for p in wrapped.parameters)
    _, loss = plain(*batch)
    loss.backward()
    assert total == pytest.approx(sum(float(p.grad.square().sum()) for p in plain.parameters()), rel=1e-4)


def test_a_run_records_its_choice_and_a_longer_resumed_training_keeps_it(text_file: Path, tmp_path: Path) -> None:
    settings = TINY | {"max_iters": 4, "snapshots": 0}
    for choice, kernels in (("on", True), ("auto", False)):
        run = minigpt.train(data=text_file, out=tmp_path / choice, compiled_loops=choice, **settings)
        assert run.config.training.compiled_loops == ("on" if kernels else "off")
        assert ("training_loops" in run.info.kernels) == kernels
    longer = minigpt.resume(tmp_path / "auto", max_iters=6, batch_size=TINY["batch_size"])
    assert longer.config.training.compiled_loops == "off"
