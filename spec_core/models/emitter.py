"""Vector instructions written one by one into LLVM code; knows no products and no models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

FLOAT, INT, BYTES = ir.FloatType(), ir.IntType(64), 4


class Emitter:
    """Writes vector instructions of a given width at an IR builder."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.builder, self.vector = builder, ir.VectorType(FLOAT, lanes)
        self.suffix = f"v{lanes}f32"

    def number(self, value: int) -> Any:
        """An integer constant."""
        return ir.Constant(INT, value)

    def at(self, address: Any, index: Any, size: int = BYTES) -> Any:
        """The address `index` items of `size` bytes further on."""
        index = self.number(index) if isinstance(index, int) else index
        return self.builder.add(address, self.builder.mul(index, self.number(size)))

    def load(self, address: Any, kind: Any = None) -> Any:
        """A vector, or a value of the kind, from memory."""
        kind = kind or self.vector
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        """A vector to memory."""
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=4)

    def fetch(self, address: Any) -> None:
        """Bring a line of memory near."""
        kind = ir.FunctionType(
            ir.VoidType(), [ir.PointerType(ir.IntType(8))] + [ir.IntType(32)] * 3
        )
        function = self.builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        place = self.builder.inttoptr(address, ir.PointerType(ir.IntType(8)))
        self.builder.call(function, [place, *(ir.Constant(ir.IntType(32), i) for i in (0, 3, 1))])

    def same(self, value: Any) -> Any:
        """A vector of one number."""
        if isinstance(value, float):
            return ir.Constant(self.vector, [value] * self.vector.count)
        none = ir.Constant(self.vector, ir.Undefined)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.vector.count), None)
        first = self.builder.insert_element(none, value, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, none, mask)

    def call(self, name: str, *args: Any, result: Any = None, **how: Any) -> Any:
        """An LLVM intrinsic on vectors."""
        kind = ir.FunctionType(result or self.vector, [a.type for a in args])
        function = self.builder.module.declare_intrinsic(f"llvm.{name}.{self.suffix}", (), kind)
        return self.builder.call(function, args, **how)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c."""
        return self.call("fmuladd", a, b, c)

    def sum(self, vector: Any) -> Any:
        """The sum over lanes, pairwise."""
        zero = ir.Constant(FLOAT, -0.0)
        kind = ir.FunctionType(FLOAT, [FLOAT, vector.type])
        name = f"llvm.vector.reduce.fadd.{self.suffix}"
        function = self.builder.module.declare_intrinsic(name, (), kind)
        return self.builder.call(function, [zero, vector], fastmath=("reassoc",))

    def sums(self, vectors: list) -> Any:
        """A vector of the sums over lanes of two or four vectors: halves are added, then theirs."""
        b, count, lanes = self.builder, len(vectors), self.vector.count
        group = lanes

        def mixed(one: Any, other: Any, wanted: Sequence[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(wanted)), list(wanted))
            return b.shuffle_vector(one, other, mask)

        while len(vectors) > 1:
            group //= 2
            low = [lane for lane in range(2 * lanes) if lane % (2 * group) < group]
            high = [lane + group for lane in low]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [b.fadd(mixed(*pair, low), mixed(*pair, high)) for pair in pairs]
        found = vectors[0]
        while group > 1:
            group //= 2
            found = b.fadd(found, mixed(found, found, [lane ^ group for lane in range(lanes)]))
        return mixed(found, found, range(0, lanes, lanes // count))

    def repeat(
        self, count: Any, step: int, start: Sequence[Any], body: Callable[[Any, list], list]
    ) -> list:
        """Run `body(i, values) -> values` for i = 0, step, ... below count, at least once."""
        b, before = self.builder, self.builder.block
        inside, after = b.append_basic_block("loop"), b.append_basic_block("after")
        b.branch(inside)
        b.position_at_end(inside)
        index = b.phi(INT)
        index.add_incoming(self.number(0), before)
        values = [b.phi(value.type) for value in start]
        for phi, value in zip(values, start, strict=True):
            phi.add_incoming(value, before)
        made = body(index, values)
        following = b.add(index, self.number(step))
        index.add_incoming(following, b.block)
        for phi, value in zip(values, made, strict=True):
            phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", following, count), inside, after)
        b.position_at_end(after)
        return made

    def choose(self, count: Any, most: int, case: Callable[[int], None]) -> None:
        """Run what `case` writes for this number of 1 to most; for any other the last."""
        b, before = self.builder, self.builder.block
        after, blocks = b.append_basic_block("after"), []
        for number in range(1, most + 1):
            blocks.append(b.append_basic_block("case"))
            b.position_at_end(blocks[-1])
            case(number)
            b.branch(after)
        b.position_at_end(before)
        switch = b.switch(count, blocks[-1])
        for number, place in enumerate(blocks[:-1], 1):
            switch.add_case(self.number(number), place)
        b.position_at_end(after)

    def exp(self, x: Any) -> Any:
        """e^x to about seven digits; 0 below -87, as at 88 above it."""
        b, vector = self.builder, self.vector
        low = b.fcmp_ordered("<", x, self.same(-87.0))
        x = b.select(low, self.same(-87.0), x)
        x = b.select(b.fcmp_ordered(">", x, self.same(88.0)), self.same(88.0), x)
        turns = self.call("rint", b.fmul(x, self.same(1.44269504088896341)))
        rest = self.fused(turns, self.same(-0.693359375), x)
        rest = self.fused(turns, self.same(2.12194440e-4), rest)
        series = self.same(1.9875691500e-4)
        for term in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5):
            series = self.fused(series, rest, self.same(term))
        value = b.fadd(self.fused(b.fmul(series, rest), rest, rest), self.same(1.0))
        whole = ir.VectorType(ir.IntType(32), vector.count)
        power = b.add(b.fptosi(turns, whole), ir.Constant(whole, [127] * vector.count))
        power = b.bitcast(b.shl(power, ir.Constant(whole, [23] * vector.count)), vector)
        return b.select(low, self.same(0.0), b.fmul(value, power))
