"""A GPT whose loss and gradients come from compiled loops while it is trained.

The windows of a batch are divided among PyTorch's threads. Each thread calls `numba_training.train_windows` once in a
step, without the interpreter's lock and without waiting for the others, and adds up the gradients of its windows. So a
step costs little more than its matrix products, also beside another program that uses a core.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minigpt.config import Config, ModelConfig
from minigpt.kernels.compilation import compile_or_warn
from minigpt.kernels.parameter_tables import list_parameters, make_tables, unique_parameters
from minigpt.kernels.plain_model import MODELS, is_plain_model
from minigpt.kernels.worker_threads import run_in_threads
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import KVCache
from minigpt.model.loss import IGNORE_INDEX

MAX_WIDTH = 128  # where matrices are wider, PyTorch's products are as fast, or with AVX-512 faster
MAX_LENGTH = 256  # tokens; the stored attention weights of longer windows would take too much memory
MIN_FLOPS = 1e12  # of a training; PyTorch finishes a shorter one before the loops are compiled
MIN_MINUTES = 0.5  # the same for a training with a time limit


def can_train_with_loops(config: Config, device: str) -> bool:
    """Return True if the compiled loops can train this: a GPT in float32 on a CPU, without dropout, of these sizes."""
    training = config.training
    return (
        device == "cpu"
        and config.model.architecture == "gpt"
        and config.model.implementation == "fast"
        and not config.model.dropout
        and config.model.n_embd <= MAX_WIDTH
        and config.model.block_size <= MAX_LENGTH
        and training.precision == "fp32"
        and not training.compile
        and not training.checkpoint_activations
        and training.parallel != "fsdp"
        and (
            training.compiled_loops == "on"
            or (training.compiled_loops == "auto" and _takes_longer_than_compiling(config))
        )
    )


def _takes_longer_than_compiling(config: Config) -> bool:
    """Return True if a training is so long that compiling its loops pays, by its settings and never by a timing."""
    training, shape = config.training, config.model
    if training.max_minutes is not None:
        return training.max_minutes >= MIN_MINUTES
    weights = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    return 6 * weights * config.tokens_per_step * training.max_iters >= MIN_FLOPS  # Kaplan et al. 2020, section 2.1


class _StepSettings(NamedTuple):
    """What differs within a training step: see `enter_step`."""

    threads: int | None = None  # of the loops, while PyTorch has one
    adds_gradients: bool = False


_step = _StepSettings()


@contextmanager
def enter_step(adds_gradients: bool) -> Iterator[None]:
    """Give PyTorch one thread, and the loops its threads, within the block.

    Args:
        adds_gradients: whether the loops add to the gradients that parameters have, without autograd's hooks.
    """
    global _step
    before, threads = _step, torch.get_num_threads()
    _step = _StepSettings(threads, adds_gradients)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _step = before
        torch.set_num_threads(threads)


class CompiledGPT(GPT):
    """`GPT` that computes its loss and its gradients in compiled loops while it is trained, in training mode."""

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the next token at every position; see `GPT.forward`. The logits have no gradient."""
        if targets is None or cache is not None or not self._can_use_loops(idx, targets):
            return super().forward(idx, targets, cache)
        parameters = list_parameters(self)
        if parameters is None or not all(p is None or _is_ordinary(p) for p in parameters):
            return super().forward(idx, targets, cache)
        if self not in _memories:
            _memories[self] = _Memory()
        present = unique_parameters(parameters)
        added = [_step.adds_gradients and _has_plain_gradient(p) for p in present]
        returned = [p.requires_grad and not is_added for p, is_added in zip(present, added, strict=True)]
        plan = _GradientPlan([*compress(present, added)], added, returned)
        batch = (self.config, parameters, idx, targets)
        loss, logits = _Step.apply(_memories[self], batch, plan, _ANCHOR, *compress(present, returned))
        return logits, loss

    def _can_use_loops(self, idx: Tensor, targets: Tensor) -> bool:
        """Return True if the loops compute this batch's loss and gradients."""
        return (
            torch.is_grad_enabled()
            and idx.shape == targets.shape
            and idx.dtype == targets.dtype == torch.int64
            and idx.device.type == "cpu"
            and 0 < idx.shape[1] <= min(self.config.block_size, MAX_LENGTH)
            and len(idx) > 0
            and self.training
            and not self.config.dropout
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and is_plain_model(self)
            and _are_ids(idx, self.config.vocab_size)
            and _are_targets(targets, self.config.vocab_size)
            and load_loops() is not None
        )


MODELS.add(CompiledGPT)


def _is_ordinary(parameter: Tensor) -> bool:
    """Return True for a parameter in one piece of this process's memory; FSDP's are divided among processes."""
    return type(parameter) in (nn.Parameter, Tensor) and parameter.is_contiguous()


def _are_ids(tokens: Tensor, V: int) -> bool:
    """Return True if all tokens are in the vocabulary. PyTorch's code refuses others."""
    low, high = torch.aminmax(tokens)
    return int(low) >= 0 and int(high) < V


def _are_targets(targets: Tensor, V: int) -> bool:
    """Return True if all targets are in the vocabulary, or some are and the others do not count."""
    if _are_ids(targets, V):
        return True
    counted = targets[targets != IGNORE_INDEX]
    return len(counted) > 0 and _are_ids(counted, V)


def _has_plain_gradient(p: Tensor) -> bool:
    """Return True for a parameter that has a gradient to add to, and no hooks that would see what is added."""
    return p.is_leaf and p.grad is not None and not p._backward_hooks and not p._post_accumulate_grad_hooks


class _GradientPlan(NamedTuple):
    """What `backward` does with the gradient of each parameter. A frozen parameter's is neither added nor returned."""

    destinations: list[Tensor]  # the parameters whose gradients it adds to
    is_added: list[bool]  # for each parameter: to the gradient that it has
    is_returned: list[bool]  # for each parameter: to autograd


# Autograd calls `backward` of a function only if an input needs gradients.
_ANCHOR = torch.zeros((), requires_grad=True)


class _Step(torch.autograd.Function):
    """The loss of a batch, whose gradients are computed together with it.

    Autograd takes twenty microseconds to add one gradient. So it gets only those that are not `added` here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        memory: "_Memory",
        batch: tuple[ModelConfig, Sequence[Tensor | None], Tensor, Tensor],
        plan: _GradientPlan,
        anchor: Tensor,
        *others: Tensor,
    ) -> Any:
        """Return the mean loss and the logits (B, T, V).

        Args:
            ctx: what backward reads.
            memory: the memory of the model's loops.
            batch: what `_Memory.compute` takes.
            plan: what backward does with each gradient.
            anchor: a tensor that needs gradients.
            others: the parameters whose gradients are returned.
        """
        loss, logits, ctx.gradients = memory.compute(*batch)
        ctx.memory, ctx.plan = memory, plan
        ctx.mark_non_differentiable(logits)
        ctx.set_materialize_grads(False)  # no zeros for the logits
        return loss, logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, d_logits: None) -> tuple[Tensor | None, ...]:
        """Add the gradients of the parameters that are added, and return those of the others."""
        if ctx.gradients is None:
            raise RuntimeError("the compiled loops keep the gradients of a loss for one backward pass")
        gradients, ctx.gradients = ctx.gradients, None
        if d_loss != 1:
            gradients.flat *= d_loss
        plan = ctx.plan
        if plan.destinations:
            torch._foreach_add_([p.grad for p in plan.destinations], [*compress(gradients.views, plan.is_added)])
        if not any(plan.is_returned):
            ctx.memory.spare_gradients.append(gradients)
        return None, None, None, None, *compress(gradients.views, plan.is_returned)


class _Gradients:
    """The gradients of a model's parameters, one after the other in one piece of memory: `flat`, and `views` of it.

    `tables` has their addresses, in the order of `make_tables`.
    """

    def __init__(self, parameters: Sequence[Tensor | None], unused: Tensor) -> None:
        """Allocate the memory.

        Args:
            parameters: those of `list_parameters`; each has one gradient, however often it is in the list.
            unused: memory for the gradient of any bias that the model does not have.
        """
        present = unique_parameters(parameters)
        self.flat = torch.empty(sum(p.numel() for p in present))
        parts = self.flat.split([p.numel() for p in present])
        self.views = [part.view_as(p) for part, p in zip(parts, present, strict=True)]
        view_of = dict(zip(present, self.views, strict=True))
        self.tables = make_tables([p if p is None else view_of[p] for p in parameters], unused)


class _Memory:
    """What the loops of one model need besides a batch: scratch memory, and gradients for each thread."""

    def __init__(self) -> None:
        self.prepared_for: tuple[Any, ...] = ()
        self.spare_gradients: list[_Gradients] = []

    def compute(
        self, config: ModelConfig, parameters: Sequence[Tensor | None], idx: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, _Gradients]:
        """Return the mean loss, the logits (B, T, V) and the gradients of `unique_parameters`.

        NumPy adds up the gradients: it starts no threads, which would then wait beside those of the loops.
        """
        (B, T), threads = idx.shape, min(len(idx), _step.threads or torch.get_num_threads())
        purpose = (T, threads, config, *(p if p is None else p.shape for p in parameters))
        if self.prepared_for != purpose:
            self._prepare(config, parameters, T, threads)
            self.prepared_for = purpose
        addresses = make_tables(parameters, self.missing)
        logits, idx, targets = torch.empty(B, T, config.vocab_size), idx.contiguous(), targets.contiguous()
        train_windows, counted = load_loops(), int((targets != IGNORE_INDEX).sum())
        total = self.spare_gradients.pop() if self.spare_gradients else _Gradients(parameters, self.unused)
        gradients = [total, *self.other_gradients]  # of each thread

        def compute_part(part: int) -> float:
            windows = slice(B * part // threads, B * (part + 1) // threads)
            x, y, out = (tensor[windows].view(-1).numpy() for tensor in (idx, targets, logits))
            tables = (*addresses, *gradients[part].tables)
            gradients[part].flat.numpy().fill(0)
            return train_windows(*self.layout, *tables, x, y, 1 / counted, out, self.scratch[part].numpy())

        loss = sum(run_in_threads(compute_part, threads)) / counted
        for other in self.other_gradients:
            np.add(total.flat.numpy(), other.flat.numpy(), out=total.flat.numpy())
        return torch.tensor(loss, dtype=torch.float32), logits, total

    def _prepare(self, config: ModelConfig, parameters: Sequence[Tensor | None], T: int, threads: int) -> None:
        """Allocate the memory for windows of T tokens and this number of threads."""
        from minigpt.kernels.numba_forward import plan_scratch
        from minigpt.kernels.numba_layers import choose_sizes

        sizes = choose_sizes(config, T)
        self.layout = (sizes, *plan_scratch(sizes))
        self.scratch = torch.empty(threads, self.layout[1].size)
        self.missing = torch.zeros(max(3 * config.n_embd, config.vocab_size))
        self.unused = torch.empty_like(self.missing)
        self.other_gradients = [_Gradients(parameters, self.unused) for _ in range(threads - 1)]
        self.spare_gradients.clear()


# Outside of the models, which can be copied and saved.
_memories: WeakKeyDictionary[nn.Module, _Memory] = WeakKeyDictionary()


@functools.cache
def load_loops() -> Any:
    """Compile `train_windows`, or load it. Warn once and return None where Numba is missing or cannot work."""

    def load() -> Any:
        from minigpt.kernels.numba_forward import plan_scratch
        from minigpt.kernels.numba_layers import Sizes
        from minigpt.kernels.numba_training import train_windows

        sizes = Sizes(T=1, C=1, H=1, V=0, L=0, F=4, activation=0, R=1)  # no windows, of a model without blocks
        layout = plan_scratch(sizes)
        tables, no_ids = (np.zeros(6, np.int64), np.zeros((0, 12), np.int64)), np.zeros(0, np.int64)
        scratch = np.zeros(layout[0].size, np.float32)
        train_windows(sizes, *layout, *tables, *tables, no_ids, no_ids, 1.0, scratch, scratch)
        return train_windows

    return compile_or_warn("loops that train", load, "the model trains with PyTorch, more slowly")
