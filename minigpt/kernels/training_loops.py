"""A GPT whose loss and gradients come from compiled loops while it is trained.

The windows of a batch are divided among PyTorch's threads. Each thread calls `numba_training.train_windows` once in a
step, without the interpreter's lock and without waiting for the others, and adds up the gradients of its windows. So a
step costs little more than its matrix products, also beside another program that uses a core.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors
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


_threads: int | None = None  # for the loops, while PyTorch has one


@contextmanager
def leave_threads_to_loops() -> Iterator[None]:
    """Give PyTorch one thread, and the loops its threads, within the block."""
    global _threads
    before, threads = _threads, torch.get_num_threads()
    _threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _threads = before
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
        present = unique_parameters(parameters)
        if self not in _memories:
            _memories[self] = _Memory()
        loss, logits = _Step.apply(_memories[self], self.config, parameters, idx, targets, *present)
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


class _Step(torch.autograd.Function):
    """The loss of a batch, whose gradients are computed together with it."""

    @staticmethod
    def forward(
        ctx: Any,
        memory: "_Memory",
        config: ModelConfig,
        parameters: Sequence[Tensor | None],
        idx: Tensor,
        targets: Tensor,
        *present: Tensor,
    ) -> Any:
        """Return the mean loss and the logits (B, T, V). The parameters that are `present` get gradients."""
        loss, logits, ctx.gradients = memory.compute(config, parameters, idx, targets)
        ctx.present = present
        ctx.mark_non_differentiable(logits)
        ctx.set_materialize_grads(False)  # no zeros for the logits
        return loss, logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor, d_logits: None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the parameters."""
        if ctx.gradients is None:
            raise RuntimeError("the compiled loops keep the gradients of a loss for one backward pass")
        gradients, scale, ctx.gradients = ctx.gradients, d_loss.item(), None
        if scale != 1:
            gradients *= np.float32(scale)
        return None, None, None, None, None, *_unflatten_dense_tensors(torch.from_numpy(gradients), ctx.present)


class _Memory:
    """What the loops of one model need besides a batch: scratch memory, and gradients for each thread."""

    def __init__(self) -> None:
        self.prepared_for: tuple[Any, ...] = ()

    def compute(
        self, config: ModelConfig, parameters: Sequence[Tensor | None], idx: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, ndarray]:
        """Return the mean loss, the logits (B, T, V) and the gradients, one parameter after the other.

        NumPy adds up the gradients: it starts no threads, which would then wait beside those of the loops.
        """
        (B, T), threads = idx.shape, min(len(idx), _threads or torch.get_num_threads())
        purpose = (T, threads, config, *(p if p is None else p.shape for p in parameters))
        if self.prepared_for != purpose:
            self._prepare(config, parameters, T, threads)
            self.prepared_for = purpose
        addresses = make_tables(parameters, self.missing)
        logits, idx, targets = torch.empty(B, T, config.vocab_size), idx.contiguous(), targets.contiguous()
        train_windows, counted = load_loops(), int((targets != IGNORE_INDEX).sum())

        def compute_part(part: int) -> float:
            windows = slice(B * part // threads, B * (part + 1) // threads)
            x, y, out = (tensor[windows].view(-1).numpy() for tensor in (idx, targets, logits))
            tables = (*addresses, *self.tables[part])
            self.gradients[part].fill(0)
            return train_windows(*self.layout, *tables, x, y, 1 / counted, out, self.scratch[part].numpy())

        loss = sum(run_in_threads(compute_part, threads)) / counted
        return torch.tensor(loss, dtype=torch.float32), logits, self.gradients.sum(axis=0)

    def _prepare(self, config: ModelConfig, parameters: Sequence[Tensor | None], T: int, threads: int) -> None:
        """Allocate the memory for windows of T tokens and this number of threads."""
        from minigpt.kernels.numba_forward import plan_scratch
        from minigpt.kernels.numba_layers import choose_sizes

        sizes = choose_sizes(config, T)
        self.layout = (sizes, *plan_scratch(sizes))
        self.scratch = torch.empty(threads, self.layout[1].size)
        self.missing = torch.zeros(max(3 * config.n_embd, config.vocab_size))
        present = unique_parameters(parameters)
        gradients = torch.empty(threads, sum(p.numel() for p in present))
        self.gradients = gradients.numpy()
        self.unused = torch.empty_like(self.missing)
        self.tables = []
        for flat in gradients:
            views = dict(zip(present, flat.split([p.numel() for p in present]), strict=True))
            self.tables.append(make_tables([p if p is None else views[p] for p in parameters], self.unused))


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
