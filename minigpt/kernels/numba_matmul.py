"""Matrix products for the compiled training step.

A product is computed in tiles of ROWS by COLUMNS numbers. The sums of a tile stay in the processor's registers while
its rows of `a` meet its columns of `b`, as in the libraries for matrix products (Goto and van de Geijn 2008, "Anatomy
of High-Performance Matrix Multiplication"). The tile is written in LLVM's vector instructions, so its speed does not
depend on what the compiler makes of a loop.
"""

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numpy import ndarray

from minigpt.kernels.numba_jit import njit_inner
from minigpt.kernels.numba_vectors import (
    COLUMNS,
    I64,
    ZEROS,
    broadcast,
    build_loop,
    intrinsic,
    load,
    multiply_add,
    skip,
    store,
)

ROWS = 12 if llvm.get_host_cpu_features().get("avx512f") else 6  # of a tile: as many as the registers hold
# NumPy's integers: for each of Python's, Numba would compile the functions that take it again.
ONE = np.int64(1)
ZERO, ADD, BIAS, BIAS_RELU = (np.int64(n) for n in range(4))  # what `multiply` adds a product to
FULL, CAUSAL, CAUSAL_COLUMNS, CAUSAL_RESULT = (
    np.int64(n) for n in range(4)
)  # which parts of a product are zero, see `multiply`


def _list_rows(builder: ir.IRBuilder, first: ir.Value, stride: ir.Value, rows: ir.Value) -> list[ir.Value]:
    """Return the addresses of ROWS rows. Where a tile has fewer, its last row stands for the others too."""
    last, addresses = builder.sub(rows, I64(1)), []
    for n in range(ROWS):
        row = builder.select(builder.icmp_signed("<", I64(n), last), I64(n), last)
        addresses.append(builder.gep(first, [builder.mul(row, stride)]))
    return addresses


@intrinsic
def _compute_tile(
    typing: Any,
    a: Any,
    a_row: Any,
    a_step: Any,
    panel: Any,
    depth: Any,
    out: Any,
    out_row: Any,
    start: Any,
    bias: Any,
    relu: Any,
    rows: Any,
) -> Any:
    """Compute a tile of a product: for each row r and column c, the sum over k < depth of a[r, k] * panel[k, c].

    Args:
        typing: of Numba.
        a: its row r begins at number r * a_row.
        a_row: see `a`.
        a_step: the distance between a[r, k] and a[r, k + 1].
        panel: (depth, COLUMNS).
        depth: the number of products in each sum.
        out: receives the tile; its row r begins at number r * out_row.
        out_row: see `out`.
        start: what the sums begin with: ZERO; ADD, for what `out` holds; BIAS or BIAS_RELU, for `bias`.
        bias: (COLUMNS,).
        relu: whether to replace negative results by 0.
        rows: the number of rows, at most ROWS.
    """
    signature = types.void(a, a_row, a_step, panel, depth, out, out_row, start, bias, relu, rows)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        a, panel, out, bias = (
            context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 3, 5, 8)
        )
        _, a_row, a_step, _, depth, _, out_row, start, _, relu, rows = arguments
        a_rows, out_rows = _list_rows(builder, a, a_row, rows), _list_rows(builder, out, out_row, rows)
        names = ("from_zero", "from_out", "from_bias", "start")
        from_zero, from_out, from_bias, begin = (builder.append_basic_block(name) for name in names)
        switch = builder.switch(start, from_bias)
        switch.add_case(ir.Constant(start.type, int(ZERO)), from_zero)
        switch.add_case(ir.Constant(start.type, int(ADD)), from_out)
        starts = {}
        for block in (from_zero, from_out, from_bias):
            builder.position_at_end(block)
            if block is from_out:
                starts[block] = [load(builder, row) for row in out_rows]
            else:
                starts[block] = [ZEROS if block is from_zero else load(builder, bias)] * ROWS
            builder.branch(begin)
        builder.position_at_end(begin)
        sums = [builder.phi(ZEROS.type) for _ in range(ROWS)]
        for block, values in starts.items():
            for total, value in zip(sums, values, strict=True):
                total.add_incoming(value, block)

        def add_products(k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            numbers = load(builder, builder.gep(panel, [builder.mul(k, I64(COLUMNS))]))
            step = builder.mul(k, a_step)
            factors = (broadcast(builder, builder.load(builder.gep(row, [step]))) for row in a_rows)
            return [multiply_add(builder, factor, numbers, total) for factor, total in zip(factors, sums, strict=True)]

        for total, row in zip(build_loop(builder, (I64(0), depth, 1), sums, add_products), out_rows, strict=True):
            is_cut = builder.and_(builder.fcmp_ordered("<", total, ZEROS), broadcast(builder, relu))  # NaN stays
            store(builder, builder.select(is_cut, ZEROS, total), row)
        return context.get_dummy_value()

    return signature, generate


@njit_inner
def _pack_columns(b: ndarray, strides: tuple[int, int], sizes: tuple[int, int], panel: ndarray) -> None:
    """Copy some columns of b, at most COLUMNS, side by side: (depth, COLUMNS), zero after the last column."""
    (b_row, b_column), (depth, columns) = strides, sizes
    for k in range(depth):
        if b_column == 1 and columns == COLUMNS:
            for c in range(COLUMNS):
                panel[k * COLUMNS + c] = b[k * b_row + c]
        else:
            for c in range(COLUMNS):
                panel[k * COLUMNS + c] = b[k * b_row + c * b_column] if c < columns else np.float32(0)


@njit_inner
def multiply(
    a: ndarray,
    a_strides: tuple[int, int],
    b: ndarray,
    b_strides: tuple[int, int],
    out: ndarray,
    sizes: tuple[int, int, int, int],
    mode: tuple[int, int],
    bias: ndarray,
    panel: ndarray,
) -> None:
    """Multiply a (M, K) by b (K, N), into out (M, N).

    All arrays are flat, and begin at the first number of their matrix. Sizes come as tuples, because Numba compiles a
    function again for each combination of constants that it is called with.

    Args:
        a: the first matrix.
        a_strides: the distances between its rows and between its columns.
        b: the second matrix.
        b_strides: the same for b.
        out: the product; its columns are one number apart.
        sizes: M, N, K and the distance between the rows of `out`.
        mode: what to add the product to, and which parts of it are zero. The first is ZERO; ADD, for what `out`
            holds; BIAS, for `bias` in each row; or BIAS_RELU, to replace negative results by 0 as well. The second is
            FULL; CAUSAL, where a[m, k] is 0 for k > m; CAUSAL_COLUMNS, where a[m, k] is 0 for k < m; or
            CAUSAL_RESULT, where no out[m, n] with n > m is needed.
        bias: (N,), read for BIAS and BIAS_RELU.
        panel: scratch memory for (K + ROWS) * COLUMNS numbers.
    """
    M, N, K, out_row = sizes
    (a_row, a_step), (_, b_column), (start, zeros) = a_strides, b_strides, mode
    relu = start == BIAS_RELU
    edge = skip(panel, K * COLUMNS)  # a tile with fewer than COLUMNS columns
    for n in range(0, N, COLUMNS):
        columns = min(COLUMNS, N - n)
        _pack_columns(skip(b, n * b_column), b_strides, (K, columns), panel)
        m = n // ROWS * ROWS if zeros == CAUSAL_RESULT else 0
        while m < M:
            rows = min(ROWS, M - m)
            first = m if zeros == CAUSAL_COLUMNS else 0
            last = min(K, m + rows) if zeros == CAUSAL else K
            a_part, b_part = skip(a, m * a_row + first * a_step), skip(panel, first * COLUMNS)
            target, target_row, target_start, target_bias = skip(out, m * out_row + n), out_row, start, skip(bias, n)
            if columns < COLUMNS:
                for r in range(rows):
                    for c in range(columns):
                        number = r * COLUMNS + c
                        edge[number] = out[(m + r) * out_row + n + c] if start == ADD else np.float32(0)
                        edge[number] += bias[n + c] if start >= BIAS else np.float32(0)
                target, target_row, target_start, target_bias = edge, COLUMNS, int(ADD), edge
            _compute_tile(
                a_part, a_row, a_step, b_part, last - first, target, target_row, target_start, target_bias, relu, rows
            )
            if columns < COLUMNS:
                for r in range(rows):
                    for c in range(columns):
                        out[(m + r) * out_row + n + c] = edge[r * COLUMNS + c]
            m += rows
