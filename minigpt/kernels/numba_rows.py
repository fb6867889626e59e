"""Decoding several texts together, or one past block_size, with GPT in loops compiled by Numba, on a CPU.

Up to block_size, each step reads one token of each text, and keys and values are cached. Past block_size nothing can be
cached: with learned positions, a window that moves by one token is a new window, whose keys and values are all new. So
each step reads all windows again. Python threads divide the texts.
"""

import numpy as np
import torch
from numpy import ndarray

from minigpt.kernels.numba_forward import DOWN, PROJ, QKV, UP, plan_scratch, predict
from minigpt.kernels.numba_layers import choose_sizes
from minigpt.kernels.numba_ops import create_zeros
from minigpt.kernels.numba_weights import copy_cache
from minigpt.kernels.parameter_tables import list_parameters, make_tables
from minigpt.kernels.worker_threads import run_in_threads
from minigpt.model.kv_cache import ContextWindow

NO_CACHE = (-1, 0, 0)


class RowsDecoder:
    """Reads the rows of a context window token by token, and predicts the next ones."""

    def __init__(self, window: ContextWindow, threads: int) -> None:
        """Copy the tokens of the window and its cached keys and values.

        Args:
            window: a window of a GPT that has read a prompt.
            threads: the number of threads, if there are as many rows.
        """
        model, cache, idx = window.model, window.cache, window.idx
        assert cache is not None
        assert idx is not None
        config, rows = model.config, len(idx)
        C, T = config.n_embd, config.block_size
        threads = min(threads, rows)
        self.rows = [slice(rows * n // threads, rows * (n + 1) // threads) for n in range(threads)]
        self.idx, self.vocab_size, self.block_size = idx.numpy(), config.vocab_size, T
        parameters = list_parameters(model)
        assert parameters is not None
        self.parameters = [p if p is None else p.detach().contiguous() for p in parameters]
        self.missing = create_zeros(max(3 * C, config.vocab_size))
        sizes = choose_sizes(config, T)
        self.layout = (sizes, *plan_scratch(sizes, training=False))
        self.tables = make_tables(self.parameters, self.missing)
        self.every = np.arange(max(T, C))
        self.scratch = [self._create_scratch() for _ in self.rows]
        self.caches = [] if self.is_full else [copy_cache(cache, own, T) for own in self.rows]

    def _create_scratch(self) -> ndarray:
        """Allocate the scratch memory of a thread, with the transposed matrices in it."""
        layout = self.layout[1]
        scratch = create_zeros(layout.size)
        blocks, head = self.parameters[:-6], self.parameters[-2]
        matrices = [blocks[n + column] for n in range(0, len(blocks), 12) for column in (QKV, PROJ, UP, DOWN)]
        for begin, weights in ((layout.matrices, matrices), (layout.head, [head])):
            flat = torch.cat([weight.T.flatten() for weight in weights if weight is not None])
            scratch[begin : begin + len(flat)] = flat
        return scratch.numpy()

    @property
    def is_full(self) -> bool:
        """Whether the window has block_size tokens, so that the next token moves it."""
        return self.idx.shape[1] == self.block_size

    def read(self, tokens: ndarray) -> ndarray:
        """Read one more token of each row (B,), and return the logits (B, V) of the next ones."""
        was_full, position = self.is_full, self.idx.shape[1]
        self.idx = np.concatenate([self.idx[:, int(was_full) :], tokens[:, None]], axis=1)
        logits = np.empty((len(self.idx), self.vocab_size), np.float32)

        def predict_rows(part: int) -> None:
            own = self.rows[part]
            cache = NO_CACHE if was_full else (position, *(tensor.data_ptr() for tensor in self.caches[part]))
            idx = self.idx[own].ravel() if was_full else tokens[own]
            out = logits[own].reshape(-1)
            predict(*self.layout, *self.tables, idx, cache, self.every, out, self.scratch[part])

        run_in_threads(predict_rows, len(self.rows))
        return logits
