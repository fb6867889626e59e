"""Vector instructions of LLVM for the compiled loops, so that their speed does not depend on what a compiler finds.

A function of this file adds instructions to a function that is being compiled. An `ir.IRBuilder` is where they go, and
an `ir.Value` is a number or a vector that exists once the compiled function runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import register_jitable

COLUMNS = 16  # float32 numbers in a vector: one register with AVX-512, two with AVX2, four with NEON
I8, I32, I64, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
CONTRACT = ("contract",)  # a product and a sum may become one instruction
ZEROS = ir.Constant(ir.VectorType(FLOAT, COLUMNS), [0.0] * COLUMNS)

intrinsic: Any = numba_intrinsic  # without Numba's types, which do not fit


@register_jitable
def pad(n: int, multiple: int = COLUMNS) -> int:
    """Return n, or the next multiple of COLUMNS or of another number."""
    return -(-n // multiple) * multiple


def load(builder: ir.IRBuilder, address: ir.Value, number_type: ir.Type = FLOAT) -> ir.Value:
    """Load a vector of COLUMNS numbers."""
    vector = builder.load(builder.bitcast(address, ir.VectorType(number_type, COLUMNS).as_pointer()))
    vector.align = 1 if number_type == I8 else 4
    return vector


def store(builder: ir.IRBuilder, vector: ir.Value, address: ir.Value) -> None:
    """Store a vector of COLUMNS numbers."""
    builder.store(vector, builder.bitcast(address, vector.type.as_pointer())).align = 4


def broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int = COLUMNS) -> ir.Value:
    """Return the vector that has this value in all of its lanes."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first_lane = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return builder.shuffle_vector(builder.insert_element(undefined, value, I32(0)), undefined, first_lane)


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    """Return a * b + total."""
    return builder.fadd(builder.fmul(a, b, flags=CONTRACT), total, flags=CONTRACT)


def build_loop(
    builder: ir.IRBuilder,
    numbers: tuple[ir.Value, ir.Value, int],
    values: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """Build a loop: for n in range(*numbers), values = body(n, values). Return the values at its end."""
    (first, end, step), before = numbers, builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("loop", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    n, current = builder.phi(I64), [builder.phi(value.type) for value in values]
    builder.cbranch(builder.icmp_signed("<", n, end), inside, after)
    builder.position_at_end(inside)
    following = [builder.add(n, I64(step)), *body(n, current)]
    builder.branch(head)
    for phi, initial, value in zip([n, *current], [first, *values], following, strict=True):
        phi.add_incoming(initial, before)
        phi.add_incoming(value, builder.block)
    builder.position_at_end(after)
    return current


@intrinsic
def skip(typing: Any, x: Any, count: Any) -> Any:
    """Return the array x (N,) from number `count` on. Numba's x[count:] compiles to ten times as much code."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = context.make_array(x)(context, builder, arguments[0])
        array.data = builder.gep(array.data, [arguments[1]])
        return array._getvalue()

    return x(x, count), generate


@intrinsic
def get_address(typing: Any, x: Any) -> Any:
    """Return the address of an array (N,)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(context.make_array(x)(context, builder, arguments[0]).data, I64)

    return types.int64(x), generate
