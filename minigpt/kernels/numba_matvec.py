"""The product of a vector and a matrix, for generating one token after another.

To generate a token, a processor reads each weight once, so the time depends on how fast it reads. A matrix is stored
in the order in which it is read: in panels of 64 outputs, and in a panel input after input. The sums of a panel stay
in registers. They are written in LLVM's vector instructions, as in numba_matmul.py.

A matrix has one of three kinds:

- FLOAT32: a number for each weight.
- INT8: a byte for each weight. The caller multiplies the result by the scales.
- NF4: after every 64 inputs, which share an absmax, the absmax of each output and then the codes. An int32 has the
  codes of eight inputs, the first in its lowest bits. The processor looks up the 16 levels in a register.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from minigpt.kernels.numba_jit import njit_inner
from minigpt.kernels.numba_vectors import (
    COLUMNS,
    FLOAT,
    I8,
    I32,
    I64,
    ZEROS,
    broadcast,
    build_loop,
    intrinsic,
    load,
    multiply_add,
    pad,
    skip,
    store,
)
from minigpt.model.nf4 import BLOCK, NF4_LEVELS

FLOAT32, INT8, NF4 = (np.int64(n) for n in range(3))
WIDTH = 64  # outputs of a panel; those that are left over have panels of COLUMNS
PACKED = 8  # codes of NF4 in an int32
BLOCK_ROWS = 1 + BLOCK // PACKED  # int32 for each output and block of NF4: the absmax and the codes

_FEATURES = set(get_host_cpu_features().split(","))  # those that Numba compiles for
LOOKUP_LANES = 16 if "+avx512f" in _FEATURES else 8 if "+avx2" in _FEATURES else 0  # numbers that are looked up at once


def pack_matrix(matrix: Tensor) -> Tensor:
    """Return the numbers of a matrix (I, O) in the order in which they are read, with outputs of zeros up to `pad(O)`.

    For NF4, `matrix` is that of `pack_nf4`.
    """
    matrix = F.pad(matrix, (0, -matrix.shape[1] % COLUMNS))
    wide = matrix.shape[1] // WIDTH * WIDTH
    parts = (matrix[:, :wide], WIDTH), (matrix[:, wide:], COLUMNS)
    return torch.cat([part.unflatten(1, (-1, width)).transpose(0, 1).flatten() for part, width in parts])


def pack_nf4(codes: Tensor, absmax: Tensor) -> Tensor:
    """Return a matrix in NF4 as int32, (BLOCK_ROWS * I / BLOCK, O).

    Args:
        codes: the numbers of the levels, (I, O), with I a multiple of BLOCK.
        absmax: (I / BLOCK, O), float32.
    """
    shifts = torch.arange(PACKED, dtype=torch.int64)[:, None] * 4
    packed = (codes.long().unflatten(0, (-1, PACKED)) << shifts).sum(dim=1)  # (I / 8, O), below 2^32
    packed = (packed & 0xFFFFFFFF).where(packed < 2**31, packed - 2**32).int().unflatten(0, (-1, BLOCK // PACKED))
    return torch.cat([absmax.view(torch.int32)[:, None], packed], dim=1).flatten(0, 1)


def _sum_rows(
    builder: ir.IRBuilder, number_type: ir.Type, groups: int, x: ir.Value, panel: ir.Value, *rest: ir.Value
) -> None:
    """Sum up in FLOAT32 or INT8. A narrow panel has several sums, because each waits for the one before it."""
    stride, rows, count, out = rest
    unrolled = max(1, 4 // groups)

    def add_row(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        i = builder.load(builder.gep(rows, [n]))
        number = broadcast(builder, builder.load(builder.gep(x, [i])))
        row = builder.gep(builder.inttoptr(panel, number_type.as_pointer()), [builder.mul(i, stride)])
        results = []
        for g, total in enumerate(sums):
            weights = load(builder, builder.gep(row, [I64(g * COLUMNS)]), number_type)
            if number_type == I8:
                integers = builder.sext(weights, ir.VectorType(I32, COLUMNS))
                weights = builder.sitofp(integers, ir.VectorType(FLOAT, COLUMNS))
            results.append(multiply_add(builder, number, weights, total))
        return results

    def add_rows(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        pairs = zip(range(unrolled), range(0, len(sums), groups), strict=True)
        return [total for u, g in pairs for total in add_row(builder.add(n, I64(u)), sums[g : g + groups])]

    whole = builder.and_(count, I64(-unrolled))
    sums = build_loop(builder, (I64(0), whole, unrolled), [ZEROS] * unrolled * groups, add_rows)
    while len(sums) > groups:
        sums = [builder.fadd(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
    for g, total in enumerate(build_loop(builder, (whole, count, 1), sums, add_row)):
        store(builder, total, builder.gep(out, [I64(g * COLUMNS)]))


def _sum_nf4(
    builder: ir.IRBuilder, number_type: ir.Type, groups: int, x: ir.Value, panel: ir.Value, *rest: ir.Value
) -> None:
    """Sum up in NF4, block after block."""
    _, _, count, out = rest
    width = groups * COLUMNS
    codes = builder.inttoptr(panel, I32.as_pointer())
    sums = [builder.gep(out, [I64(g * COLUMNS)]) for g in range(groups)]
    for address in sums:
        store(builder, ZEROS, address)

    def add_block(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        block = builder.gep(codes, [builder.mul(builder.sdiv(first, I64(BLOCK)), I64(BLOCK_ROWS * width))])

        def add_row(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            row = builder.gep(block, [builder.mul(builder.add(n, I64(1)), I64(width))])
            inputs = builder.gep(x, [builder.add(first, builder.mul(n, I64(PACKED)))])
            numbers = [broadcast(builder, builder.load(builder.gep(inputs, [I64(k)]))) for k in range(PACKED)]
            results = []
            for g, total in enumerate(sums):
                packed = load(builder, builder.gep(row, [I64(g * COLUMNS)]), I32)
                for k, number in enumerate(numbers):
                    total = multiply_add(builder, number, _look_up_levels(builder, packed, k), total)
                results.append(total)
            return results

        totals = build_loop(builder, (I64(0), I64(BLOCK // PACKED), 1), [ZEROS] * groups, add_row)
        absmax = builder.bitcast(block, FLOAT.as_pointer())
        for g, (total, address) in enumerate(zip(totals, sums, strict=True)):
            scale = load(builder, builder.gep(absmax, [I64(g * COLUMNS)]))
            store(builder, multiply_add(builder, scale, total, load(builder, address)), address)
        return []

    build_loop(builder, (I64(0), count, BLOCK), [], add_block)


def _look_up_levels(builder: ir.IRBuilder, packed: ir.Value, k: int) -> ir.Value:
    """Return the levels of the k-th codes in a vector of packed codes."""
    lanes = LOOKUP_LANES
    integers, floats = ir.VectorType(I32, lanes), ir.VectorType(FLOAT, lanes)
    name = "llvm.x86.avx512.permvar.sf.512" if lanes == 16 else "llvm.x86.avx2.permps"
    permute = cgutils.get_or_insert_function(builder.module, ir.FunctionType(floats, [floats, integers]), name)
    tables = [ir.Constant(floats, NF4_LEVELS[n : n + lanes]) for n in range(0, len(NF4_LEVELS), lanes)]
    found = []
    for first in range(0, COLUMNS, lanes):
        order = ir.Constant(integers, [*range(first, first + lanes)])
        part = builder.shuffle_vector(packed, ir.Constant(packed.type, ir.Undefined), order)
        number = builder.lshr(part, ir.Constant(integers, [4 * k] * lanes))  # the processor reads the lowest bits
        levels = [builder.call(permute, [table, number]) for table in tables]
        if len(levels) == 2:  # the code's highest bit chooses between the tables
            highest = builder.shl(part, ir.Constant(integers, [28 - 4 * k] * lanes))
            is_high = builder.icmp_signed("<", highest, ir.Constant(integers, [0] * lanes))
            levels = [builder.select(is_high, levels[1], levels[0])]
        found += levels
    if len(found) == 1:
        return found[0]
    return builder.shuffle_vector(*found, ir.Constant(ir.VectorType(I32, COLUMNS), [*range(COLUMNS)]))


def _build_sum(groups: int) -> Any:
    """Build the function that computes the sums of a panel of `groups` times COLUMNS outputs."""

    @intrinsic
    def sum_panel(typing: Any, x: Any, panel: Any, stride: Any, rows: Any, count: Any, out: Any, kind: Any) -> Any:
        """Write the sum of x[i] * panel[i], over the first `count` numbers i in `rows`, to out.

        Args:
            typing: of Numba.
            x: (I,).
            panel: the address of the panel.
            stride: the distance between panel[i] and panel[i + 1]. Not used for NF4.
            rows: which inputs to read. NF4 reads all.
            count: the number of rows; for NF4 a multiple of BLOCK.
            out: (groups * COLUMNS,).
            kind: FLOAT32, INT8 or NF4.
        """
        signature = types.void(x, panel, stride, rows, count, out, kind)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            x, rows, out = (
                context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 3, 5)
            )
            _, panel, stride, _, count, _, kind = arguments
            end = builder.append_basic_block("end")
            switch = builder.switch(kind, end)
            for number, (sum_up, number_type) in _SUMS.items():
                case = builder.append_basic_block(f"kind_{number}")
                switch.add_case(ir.Constant(kind.type, int(number)), case)
                builder.position_at_end(case)
                sum_up(builder, number_type, groups, x, panel, stride, rows, count, out)
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return signature, generate

    return sum_panel


_SUMS = {FLOAT32: (_sum_rows, FLOAT), INT8: (_sum_rows, I8)} | ({NF4: (_sum_nf4, I32)} if LOOKUP_LANES else {})
_sum_wide, _sum_narrow = _build_sum(WIDTH // COLUMNS), _build_sum(1)


@njit_inner
def multiply_packed(
    x: ndarray, matrix: int, kind: int, sizes: tuple[int, int, int], rows: ndarray, out: ndarray
) -> None:
    """Multiply x (I,) by a packed matrix (I, O).

    Args:
        x: the vector.
        matrix: the address of the numbers that `pack_matrix` returns.
        kind: FLOAT32, INT8 or NF4.
        sizes: I, O, and the number of inputs in `rows`.
        rows: the inputs that are not 0.
        out: receives the product; it has room for `pad(O)` numbers.
    """
    I, O, count = sizes  # noqa: E741
    bytes_of_output = I if kind == INT8 else 4 * I
    if kind == NF4:
        bytes_of_output = 4 * BLOCK_ROWS * (I // BLOCK)
    o = 0
    while o + WIDTH <= pad(O):
        _sum_wide(x, matrix + o * bytes_of_output, WIDTH, rows, count, skip(out, o), kind)
        o += WIDTH
    while o < O:
        _sum_narrow(x, matrix + o * bytes_of_output, COLUMNS, rows, count, skip(out, o), kind)
        o += COLUMNS


@njit_inner
def multiply_rows(x: ndarray, matrix: int, stride: int, O: int, rows: ndarray, count: int, out: ndarray) -> None:  # noqa: E741
    """Multiply x (I,) by a float32 matrix (I, O) whose rows are `stride` numbers apart, up to a multiple of COLUMNS.

    `matrix` is its address, and the first `count` of `rows` are the inputs to read.
    """
    o = 0
    while o + WIDTH <= pad(O):
        _sum_wide(x, matrix + 4 * o, stride, rows, count, skip(out, o), FLOAT32)
        o += WIDTH
    while o < O:
        _sum_narrow(x, matrix + 4 * o, stride, rows, count, skip(out, o), FLOAT32)
        o += COLUMNS
