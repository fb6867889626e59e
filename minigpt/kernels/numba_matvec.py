"""The product of a vector and a matrix, for generating one token after another.

To generate a token, a processor reads each weight once, so the time depends on how fast it reads. A matrix is stored
in the order in which it is read: in panels of 64 outputs, and in a panel input after input. The sums of a panel stay
in registers. They are written in LLVM's vector instructions, as in numba_matmul.py.

A matrix has one of three kinds:

- FLOAT32: a number for each weight.
- INT8: a byte for each weight. The caller multiplies the result by the scales.
- NF4: block after block of 64 inputs. A block has the absmax of each output, and then the codes, two inputs in a byte.
  The processor looks up the levels in registers, 32 at a time.
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
NF4_BYTES = WIDTH // 2 + 4 * WIDTH // BLOCK  # of a panel, for each input: the codes, and a share of the absmax
HAS_NF4 = "+avx2" in get_host_cpu_features().split(",")  # those that Numba compiles for
_ORDER = [8 * (n % 16 // 4) + 4 * (n // 16) + n % 4 for n in range(32)]  # of 32 outputs, see `_look_up_levels`


def pack_matrix(matrix: Tensor) -> Tensor:
    """Return a matrix (O, I) in the order in which it is read, with outputs of zeros up to `pad(O)`."""
    (O, I), packed = matrix.shape, matrix.new_empty(pad(len(matrix)) * matrix.shape[1])  # noqa: E741
    wide = O // WIDTH * WIDTH
    if wide < O:
        matrix = F.pad(matrix, (0, 0, 0, -O % COLUMNS))
    for width, part in ((WIDTH, slice(wide)), (COLUMNS, slice(wide, None))):
        panels = matrix[part].unflatten(0, (-1, width)).transpose(1, 2)
        packed[I * (part.start or 0) :][: panels.numel()].view(panels.shape).numpy()[:] = panels.numpy()  # faster here
    return packed


def pack_nf4(codes: Tensor, absmax: Tensor) -> Tensor:
    """Return a matrix in NF4 in the order in which it is read, as bytes.

    Args:
        codes: two inputs in each byte, the first in the upper half: (O, I / 2), uint8, with O a multiple of WIDTH.
        absmax: (O, I / BLOCK), float32.
    """
    scales = absmax.unflatten(0, (-1, WIDTH)).transpose(1, 2).contiguous().view(torch.uint8)  # (panels, blocks, bytes)
    halves = codes.unflatten(1, (-1, BLOCK // 2)).unflatten(0, (-1, WIDTH // 32, 32))[:, :, _ORDER]
    panels = halves.permute(0, 3, 1, 4, 2)  # (panels, blocks, halves, bytes of an output, 32)
    return torch.cat([scales, panels.flatten(2)], dim=2).flatten()


def _sum_rows(
    builder: ir.IRBuilder, number_type: ir.Type, groups: int, x: ir.Value, panel: ir.Value, *rest: ir.Value
) -> None:
    """Sum up in FLOAT32 or INT8. A narrow panel has several sums, because each waits for the one before it."""
    stride, rows, count, out = rest
    unrolled = max(1, 4 // groups)

    def add_row(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        i = n if rows is None else builder.load(builder.gep(rows, [n]))
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
    """Sum up in NF4, block after block. All panels are wide, because O is a multiple of BLOCK."""
    _, _, count, out = rest
    eight = ir.VectorType(FLOAT, 8)
    sums = [builder.bitcast(builder.gep(out, [I64(n)]), eight.as_pointer()) for n in range(0, WIDTH, 8)]
    zeros = ir.Constant(eight, [0.0] * 8)
    for address in sums:
        builder.store(zeros, address).align = 4

    def add_block(first: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        begin = builder.add(panel, builder.mul(first, I64(NF4_BYTES)))  # NF4_BYTES for each input
        scales = builder.inttoptr(begin, eight.as_pointer())
        codes = builder.inttoptr(builder.add(begin, I64(4 * WIDTH)), ir.VectorType(I8, 32).as_pointer())
        for half in range(WIDTH // 32):  # 32 outputs at a time, so that all sums and tables have a register

            def add_pair(n: ir.Value, totals: list[ir.Value], half: int = half) -> list[ir.Value]:
                inputs = builder.gep(x, [builder.add(first, builder.mul(n, I64(2)))])
                packed = builder.load(builder.gep(codes, [builder.add(n, I64(half * BLOCK // 2))]))
                packed.align = 1
                for k, levels in enumerate(_look_up_levels(builder, packed)):
                    number = broadcast(builder, builder.load(builder.gep(inputs, [I64(k)])), 8)
                    totals = [multiply_add(builder, number, level, t) for level, t in zip(levels, totals, strict=True)]
                return totals

            totals = build_loop(builder, (I64(0), I64(BLOCK // 2), 1), [zeros] * 4, add_pair)
            for n, total in enumerate(totals, 4 * half):
                scale, before = builder.load(builder.gep(scales, [I64(n)])), builder.load(sums[n])
                scale.align = before.align = 4
                builder.store(multiply_add(builder, scale, total, before), sums[n]).align = 4
        return []

    build_loop(builder, (I64(0), count, BLOCK), [], add_block)


def _look_up_levels(builder: ir.IRBuilder, packed: ir.Value) -> list[list[ir.Value]]:
    """Return the levels of 32 bytes: four vectors of eight for the codes in the upper halves, and four for the lower.

    A table of 16 bytes fits in a register. So the four bytes of a float32 are looked up one by one, and then put
    together. `_ORDER` undoes the order in which the outputs come out.
    """
    vector = packed.type
    look_up = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector, vector]), "llvm.x86.avx2.pshuf.b"
    )
    tables = [
        ir.Constant(vector, [*table, *table])
        for table in np.array(NF4_LEVELS, np.float32).view(np.uint8).reshape(-1, 4).T.tolist()
    ]
    upper = builder.lshr(packed, ir.Constant(vector, [4] * 32))
    lower = builder.and_(packed, ir.Constant(vector, [15] * 32))
    results = []
    for numbers in (upper, lower):
        planes = [builder.call(look_up, [table, numbers]) for table in tables]
        pairs = [_interleave(builder, planes[n], planes[n + 1], 1) for n in (0, 2)]  # 16 bits of a number each
        floats = []
        for low, high in zip(*pairs, strict=True):
            floats += _interleave(builder, low, high, 2)
        results.append([builder.bitcast(each, ir.VectorType(FLOAT, 8)) for each in floats])
    return results


def _interleave(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, size: int) -> list[ir.Value]:
    """Interleave a and b, `size` bytes at a time: the lower halves of both 16 bytes, and the upper halves."""
    results = []
    for half in (0, 8):
        order = [
            source + lane + half + n + byte
            for lane in (0, 16)
            for n in range(0, 8, size)
            for source in (0, 32)
            for byte in range(size)
        ]
        results.append(builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 32), order)))
    return results


def _build_sum(groups: int) -> Any:
    """Build the function that computes the sums of a panel of `groups` times COLUMNS outputs."""

    @intrinsic
    def sum_panel(typing: Any, x: Any, panel: Any, stride: Any, rows: Any, count: Any, out: Any, kind: Any) -> Any:
        """Write the sum of x[i] * panel[i], over `count` inputs i, to out.

        Args:
            typing: of Numba.
            x: (I,).
            panel: the address of the panel.
            stride: the distance between panel[i] and panel[i + 1]. Not used for NF4.
            rows: the inputs to read, or None for the first ones. NF4 reads all.
            count: the number of inputs to read; for NF4 a multiple of BLOCK.
            out: (groups * COLUMNS,).
            kind: FLOAT32, INT8 or NF4.
        """
        signature = types.void(x, panel, stride, rows, count, out, kind)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            x, rows, out = (
                None
                if signature.args[n] == types.none
                else context.make_array(signature.args[n])(context, builder, arguments[n]).data
                for n in (0, 3, 5)
            )
            _, panel, stride, _, count, _, kind = arguments
            end = builder.append_basic_block("end")
            switch = builder.switch(kind, end)
            for number, (sum_up, number_type) in _SUMS.items():
                if number == NF4 and groups * COLUMNS != WIDTH:
                    continue
                case = builder.append_basic_block(f"kind_{number}")
                switch.add_case(ir.Constant(kind.type, int(number)), case)
                builder.position_at_end(case)
                sum_up(builder, number_type, groups, x, panel, stride, rows, count, out)
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return signature, generate

    return sum_panel


_SUMS = {FLOAT32: (_sum_rows, FLOAT), INT8: (_sum_rows, I8)} | ({NF4: (_sum_nf4, I8)} if HAS_NF4 else {})
_sum_wide, _sum_narrow = _build_sum(WIDTH // COLUMNS), _build_sum(1)


@njit_inner
def multiply_packed(
    x: ndarray, matrix: int, kind: int, sizes: tuple[int, int, int], rows: ndarray | None, out: ndarray
) -> None:
    """Multiply x (I,) by a packed matrix (I, O).

    Args:
        x: the vector.
        matrix: the address of the numbers that `pack_matrix` returns.
        kind: FLOAT32, INT8 or NF4.
        sizes: I, O, and the number of inputs to read.
        rows: these inputs, if some are 0; None for all.
        out: receives the product; it has room for `pad(O)` numbers.
    """
    I, O, count = sizes  # noqa: E741
    o, address, weight_bytes = 0, matrix, 1 if kind == INT8 else 4
    panel_bytes = I * (NF4_BYTES if kind == NF4 else WIDTH * weight_bytes)
    while o + WIDTH <= O:
        _sum_wide(x, address, WIDTH, rows, count, skip(out, o), kind)
        o += WIDTH
        address += panel_bytes
    while o < O:
        _sum_narrow(x, address, COLUMNS, rows, count, skip(out, o), kind)
        o += COLUMNS
        address += I * COLUMNS * weight_bytes


@njit_inner
def multiply_rows(x: ndarray, matrix: int, sizes: tuple[int, int, int], out: ndarray) -> None:
    """Multiply x (I,) by a float32 matrix (I, O) at an address.

    Args:
        x: the vector.
        matrix: the address. The processor reads its rows up to a multiple of COLUMNS.
        sizes: I, O, and the distance between two rows.
        out: receives the product; it has room for `pad(O)` numbers.
    """
    (I, O, stride), o = sizes, 0  # noqa: E741
    while o + WIDTH <= O:
        _sum_wide(x, matrix + 4 * o, stride, None, I, skip(out, o), FLOAT32)
        o += WIDTH
    while o < O:
        _sum_narrow(x, matrix + 4 * o, stride, None, I, skip(out, o), FLOAT32)
        o += COLUMNS
