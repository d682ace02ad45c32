# SPDX-License-Identifier: Apache-2.0
"""A pickle's values without its code: a machine of its own for the opcodes, which imports nothing and calls nothing.

What a global would make is described instead of made: storages and tensors as records, plain containers as containers,
everything else as `Opaque`. Globals that are not on the list below are collected by name, so that the caller can refuse
the file and say which code it needs. All work is bounded by the bytes read and by `MAX_OPS`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

from fvport.weights.pickle_values import Global, Malformed, Opaque, Storage, Table, Tensor, call, known, storage

__all__ = ["Loaded", "Malformed", "Opaque", "Storage", "Table", "Tensor", "load"]

MAX_OPS = 2_000_000  # a checkpoint of 10,000 tensors with its optimiser takes some 1,200,000
MAX_LINE = 65_536  # bytes of one text argument
OPCODES = {op.code.encode("latin-1"): op for op in pickletools.opcodes}


class Loaded(NamedTuple):
    value: Any
    needs: tuple[str, ...]  # globals that only code could answer


def load(stream: BinaryIO) -> Loaded:
    """Read one pickle from where `stream` stands. Malformed when it is none; `needs` names what it wants to run."""
    machine, lines = _Machine(), cast(BinaryIO, _Lines(stream))
    for _ in range(MAX_OPS):
        op = OPCODES.get(stream.read(1))
        if op is None:
            raise Malformed("it breaks off, or an opcode is none" + machine.wanted())
        try:
            argument = op.arg.reader(lines) if op.arg else None
            if op.name == "STOP":
                return Loaded(machine.pop(), tuple(machine.needs))
            machine.step(op.name, argument)
        except Malformed as error:
            raise Malformed(f"{error}{machine.wanted()}") from None
        except (ValueError, IndexError, TypeError, OverflowError, RecursionError) as error:
            raise Malformed(f"{op.name}: {str(error)[:120]}{machine.wanted()}") from None
    raise Malformed(f"it has more than {MAX_OPS} steps" + machine.wanted())


class _Lines:
    """What pickletools' readers need of a stream, with bounded lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.stream = stream

    def readline(self) -> bytes:
        return self.stream.readline(MAX_LINE)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.needs: dict[str, None] = {}
        self.copied = 0

    def copy(self, items: Any) -> list[Any]:
        """A container made of another, such as OrderedDict(pairs); bytes that say it again and again are refused."""
        self.copied += len(items)
        if self.copied > MAX_OPS:
            raise Malformed("it copies its containers over and over")
        return list(items)

    def wanted(self) -> str:
        return f" (it also wants to run {', '.join(list(self.needs)[:3])})" if self.needs else ""

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise Malformed("its stack runs empty")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("a mark is missing")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.push(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise Malformed(f"the opcode {name} has no place in a checkpoint")

    def remember(self, index: int) -> None:
        if not self.stack:
            raise Malformed("its stack runs empty")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed("it recalls what it never kept")
        self.push(self.memo[index])

    def call(self, target: Any, arguments: Any) -> None:
        self.push(call(self.copy, target, arguments if isinstance(arguments, tuple) else ()))

    def find(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global is named by something else than words")
        found = Global(module, name)
        if not known(found):
            self.needs.setdefault(str(found)[:200])
        return found

    def extend(self, items: list[Any]) -> None:
        """APPEND(S), ADDITEMS: onto whatever lies on top; what is no list keeps nothing."""
        if not self.stack:
            raise Malformed("its stack runs empty")
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def fill(self, items: list[Any]) -> None:
        """SETITEM(S)"""
        if not self.stack or len(items) % 2:
            raise Malformed("a dict is given half a pair")
        if isinstance(self.stack[-1], Table):
            self.stack[-1].pairs.extend(zip(items[::2], items[1::2], strict=True))

    def persistent(self, given: Any) -> None:
        self.push(storage(given))


# --- opcodes ---------------------------------------------------------------------------------------------------------

_VALUES = set(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 FLOAT BINFLOAT""".split()  # noqa: SIM905 - a table
)


def _protocol(machine: _Machine, argument: int) -> None:
    if argument > 5:
        raise Malformed(f"its protocol {argument} is not known")


def _instance(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    items = machine.to_mark()
    machine.call(machine.find(module, name), tuple(items))


def _object(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    if not items:
        raise Malformed("an object of no class")
    machine.call(items[0], tuple(items[1:]))


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(machine.find(module, name))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.find(module, name))


def _reduce(machine: _Machine, argument: Any) -> None:
    arguments, target = machine.pop(), machine.pop()
    machine.call(target, arguments)


def _new_extended(machine: _Machine, argument: Any) -> None:
    _, arguments, target = machine.pop(), machine.pop(), machine.pop()
    machine.call(target, arguments)


def _mark(machine: _Machine, argument: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pairs(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill([key, value])


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, argument: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return make


def _table_of_marked(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    machine.push(Table())
    machine.fill(items)


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": _protocol,
    "FRAME": lambda m, a: None,
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "MARK": _mark,
    "POP": lambda m, a: m.pop() if m.stack else m.to_mark(),
    "POP_MARK": lambda m, a: m.to_mark(),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_DICT": lambda m, a: m.push(Table()),
    "EMPTY_SET": lambda m, a: m.push([]),
    "LIST": lambda m, a: m.push(m.to_mark()),
    "FROZENSET": lambda m, a: m.push(m.to_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.to_mark())),
    "DICT": _table_of_marked,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda m, a: m.extend([m.pop()]),
    "APPENDS": lambda m, a: m.extend(m.to_mark()),
    "ADDITEMS": lambda m, a: m.extend(m.to_mark()),
    "SETITEM": _pairs,
    "SETITEMS": lambda m, a: m.fill(m.to_mark()),
    "PUT": lambda m, a: m.remember(a),
    "BINPUT": lambda m, a: m.remember(a),
    "LONG_BINPUT": lambda m, a: m.remember(a),
    "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
    "GET": lambda m, a: m.recall(a),
    "BINGET": lambda m, a: m.recall(a),
    "LONG_BINGET": lambda m, a: m.recall(a),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_extended,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda m, a: m.pop(),
    "BINPERSID": lambda m, a: m.persistent(m.pop()),
}
