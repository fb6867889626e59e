"""Decoding several texts together, or one past block_size, in loops compiled by Numba, on a CPU.

Up to block_size, each step reads one token of each text, and keys and values are cached. Past block_size nothing can be
cached: a window that moves by one token is a new window. Its learned positions are all new, and with rotary positions
its first token has lost what was before it. So each step reads all windows again. Python threads divide the texts.

A single text past block_size has work for two threads. All tokens of the next window but its last are known before
that last token is sampled. So while one thread reads the window, the other reads the known tokens of the next one. Once
its last token is sampled, a short step completes it.
"""

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from minigpt.kernels.numba_forward import DOWN, PROJ, QKV, UP, BlockLayout, Layout, plan_scratch, predict
from minigpt.kernels.numba_layers import Sizes, choose_sizes
from minigpt.kernels.numba_modern import predict_modern
from minigpt.kernels.numba_ops import create_zeros
from minigpt.kernels.numba_weights import copy_cache
from minigpt.kernels.parameter_tables import list_parameters, make_tables
from minigpt.kernels.plain_model import get_weight
from minigpt.kernels.worker_threads import run_in_threads
from minigpt.model.kv_cache import ContextWindow, KVCache
from minigpt.model.modern import compute_rotation


class RowsDecoder:
    """Reads the rows of a GPT's context window token by token, and predicts the next ones."""

    @torch.no_grad()
    def __init__(self, window: ContextWindow, threads: int) -> None:
        """Copy the tokens of the window and its cached keys and values.

        Args:
            window: a window that has read a prompt.
            threads: the number of threads, if there are as many rows.
        """
        model, cache, idx = window.model, window.cache, window.idx
        assert cache is not None
        assert idx is not None
        config, rows = model.config, len(idx)
        self.config, self.idx, parts = config, idx.numpy(), min(threads, rows)
        self.rows = [slice(rows * n // parts, rows * (n + 1) // parts) for n in range(parts)]
        self.zeros = create_zeros(max(4 * config.n_embd, config.vocab_size))
        self.layouts: dict[int, Any] = {}  # for each number of tokens that are read at a time
        matrices = self._copy_parameters(model)
        has_ahead = rows == 1 and threads > 1 and config.block_size > 1
        self.scratch = [self._create_scratch(*matrices) for _ in range(2 if has_ahead else parts)]
        self.caches = [self._copy_cache(cache, own) for own in self.rows]
        self.ahead = self._copy_cache(cache, self.rows[0]) if has_ahead else None  # of the next window
        self.is_ahead = False  # whether its known tokens are in the cache

    def _plan(self, tokens: int) -> tuple[Sizes, Layout, BlockLayout]:
        """Return the sizes and layouts for reading this many tokens of a text at a time."""
        if tokens not in self.layouts:
            sizes = choose_sizes(self.config, tokens)
            self.layouts[tokens] = sizes, *plan_scratch(sizes, self.config.block_size)
        return self.layouts[tokens]

    def _copy_parameters(self, model: Any) -> tuple[list[Tensor], Tensor]:
        """Keep the parameters. Return the matrices of the blocks in the order of `Layout.matrices`, and the head's."""
        parameters = list_parameters(model)
        assert parameters is not None
        self.parameters = [p if p is None else p.detach().contiguous() for p in parameters]
        self.tables = make_tables(self.parameters, self.zeros)
        columns = [n + column for n in range(0, len(parameters) - 6, 12) for column in (QKV, PROJ, UP, DOWN)]
        *matrices, head = [w for w in (self.parameters[n] for n in (*columns, -2)) if w is not None]
        return matrices, head

    def _create_scratch(self, matrices: list[Tensor], head: Tensor) -> ndarray:
        """Allocate the scratch memory of a thread, with the transposed matrices in it."""
        layout = self._plan(self.config.block_size)[1]
        scratch = create_zeros(max(layout.size, self._plan(1)[1].size))
        for begin, weights in ((layout.matrices, matrices), (layout.head, [head])):
            flat = torch.cat([weight.detach().T.flatten() for weight in weights])
            scratch[begin : begin + len(flat)] = flat
        return scratch.numpy()

    def _copy_cache(self, cache: KVCache, rows: slice) -> tuple[Tensor, ...]:
        """Return the cached keys and values of some rows."""
        return copy_cache(cache, rows, self.config.block_size)

    @property
    def is_full(self) -> bool:
        """Whether the window has block_size tokens, so that the next token moves it."""
        return self.idx.shape[1] == self.config.block_size

    def read(self, tokens: ndarray) -> ndarray:
        """Read one more token of each row (B,), and return the logits (B, V) of the next ones."""
        was_full, position, last = self.is_full, self.idx.shape[1], tokens[:, None]
        self.idx = np.concatenate([self.idx[:, int(was_full) :], last], axis=1)
        if was_full and self.ahead is not None:
            return self._read_window_and_ahead(last)

        def predict_rows(part: int) -> ndarray:
            own = self.rows[part]
            if was_full:
                return self._predict(part, self.idx[own], 0, self.caches[part], store=False)
            return self._predict(part, last[own], position, self.caches[part])

        return np.concatenate(run_in_threads(predict_rows, len(self.rows)))

    def _read_window_and_ahead(self, last: ndarray) -> ndarray:
        """Read the window of a single row, and at the same time the known tokens of the next one."""
        assert self.ahead is not None
        caches, self.is_ahead = (self.caches[0], self.ahead), not self.is_ahead
        if not self.is_ahead:
            return self._predict(1, last, self.config.block_size - 1, self.ahead)
        return run_in_threads(lambda n: self._predict(n, self.idx[:, n:], 0, caches[n], store=n == 1), 2)[0]

    def _predict(
        self, part: int, idx: ndarray, position: int, cache: tuple[Tensor, ...], store: bool = True
    ) -> ndarray:
        """Read tokens (W, T) of some rows, and return the logits (W, V) of the next ones.

        Args:
            part: which scratch memory to use.
            idx: the tokens.
            position: the position of the first; 0, or T is 1.
            cache: the keys and values of the tokens before it.
            store: whether to add those of these tokens.
        """
        keys, values = (tensor.data_ptr() if store else 0 for tensor in cache[:2])
        logits = np.empty((len(idx), self.config.vocab_size), np.float32)
        addresses = position, keys, values, self.config.block_size
        rest = np.ascontiguousarray(idx).ravel(), addresses, logits.reshape(-1), self.scratch[part]
        self._run(self._plan(idx.shape[1]), cache, position, rest)
        return logits

    def _run(self, plan: Any, cache: tuple[Tensor, ...], position: int, rest: Any) -> None:
        """Call the compiled function."""
        predict(*plan, *self.tables, *rest)


class ModernRowsDecoder(RowsDecoder):
    """Does the same for a Modern."""

    def _copy_parameters(self, model: Any) -> tuple[list[Tensor], Tensor]:
        """Keep the parameters. Return the matrices of the blocks in the order of `Layout.matrices`, and the head's."""
        T, D = self.config.block_size, self.config.n_embd // self.config.n_head
        shifts = [model.token_shift_weight, *(block.ffwd.token_shift_weight for block in model.blocks)]
        cos, sin = compute_rotation(torch.arange(T), create_zeros(D))  # (T, 1, D / 2) each
        table = model.token_embedding_table.weight.detach().flatten()
        self.arrays = [x.numpy() for x in (table, torch.cat(shifts).detach(), torch.cat([cos, sin], dim=2).flatten())]
        matrices: list[Tensor] = []
        for block in model.blocks:
            attention, ffwd = block.attention, block.ffwd
            matrices.append(
                torch.cat([get_weight(layer) for layer in (attention.query, attention.key, attention.value)])
            )
            matrices += [get_weight(layer) for layer in (attention.proj, ffwd.up, ffwd.down)]
        return matrices, get_weight(model.lm_head)

    def _copy_cache(self, cache: KVCache, rows: slice) -> tuple[Tensor, ...]:
        """Return the cached keys and values of some rows, and the last inputs of the token shifts, (1 + L, W, C)."""
        last_inputs = torch.stack([inputs[rows, 0] for inputs in cache.last_inputs()])
        return *super()._copy_cache(cache, rows), last_inputs.clone()

    def _run(self, plan: Any, cache: tuple[Tensor, ...], position: int, rest: Any) -> None:
        """Call the compiled function."""
        if position == 0:
            cache[2].numpy().fill(0)
        predict_modern(*plan, *self.arrays, self.zeros.numpy(), cache[2].view(-1).numpy(), *rest)
