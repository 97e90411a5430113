"""The part of pickle that a state dict uses, run by an interpreter that can call nothing.

Python's own unpickler calls whatever a pickle names. This one executes some thirty opcodes that build
numbers, strings, tuples, lists and dicts, and hands every global name, persistent id and call to a
``Resolver``, which knows the few that a state dict needs. Everything else is refused by its name.
"""

from __future__ import annotations

import pickletools
from typing import Any, Protocol

from lewm.errors import Error

__all__ = ["Resolver", "run"]

_MAX_INSTRUCTIONS = 2_000_000  # a state dict of 300 tensors has about 15,000


class Resolver(Protocol):
    """What the names, persistent ids and calls in a pickle mean."""

    def find(self, module: str, name: str) -> Any:
        """What a global name stands for; raises lewm.Error for a name that is not admitted."""

    def persistent(self, identifier: Any) -> Any:
        """The object of a persistent id."""

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """The result of applying what ``find`` returned to arguments."""


def run(data: bytes, resolver: Resolver, source: str) -> Any:
    """The object that a pickle describes.

    Raises:
        lewm.Error: the pickle is malformed, or uses an opcode, name or call that is not admitted.
    """
    machine = _Machine(resolver, source)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= _MAX_INSTRUCTIONS:
                raise Error(f"{source}: its pickle has more than {_MAX_INSTRUCTIONS} instructions")
            if opcode.name == "STOP":
                return machine.result()
            machine.step(opcode.name, argument)
    except Error:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise Error(f"{source}: its pickle is truncated or malformed ({error})") from None
    raise Error(f"{source}: its pickle has no end")


class _Mark:
    """Where the items of a tuple, list or dict begin on the stack."""


_MARK = _Mark()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    def __init__(self, resolver: Resolver, source: str) -> None:
        self._resolver = resolver
        self._source = source
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self._stack) != 1:
            raise ValueError(f"{len(self._stack)} objects at its end")
        return self._pop()

    def step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _VALUES:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            stack.append(tuple(reversed([self._pop() for _ in range(count)])))
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode not in ("PROTO", "FRAME"):
            if opcode not in _ACTIONS:
                raise Error(f"{self._source}: its pickle uses {opcode}, which no state dict needs")
            _ACTIONS[opcode](self, argument)

    def _top(self) -> Any:
        if self._stack[-1] is _MARK:
            raise ValueError("an object is missing")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        return value

    def _items(self) -> list[Any]:
        """Pops everything above the last mark, and the mark."""
        position = len(self._stack) - 1
        while self._stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise ValueError("a mark is missing")
        items = self._stack[position + 1 :]
        del self._stack[position:]
        return items

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._items()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._items())

    def _dict(self, _: Any) -> None:
        items = self._items()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        item = self._pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._items())

    def _setitem(self, _: Any) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def _setitems(self, _: Any) -> None:
        self._set(self._items())

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._resolver.find(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a global name is no string")
        self._stack.append(self._resolver.find(module, name))

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._resolver.persistent(self._pop()))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise ValueError("the arguments of a call are no tuple")
        self._stack.append(self._resolver.call(function, arguments))

    def _build(self, _: Any) -> None:
        """Attributes of a state dict (torch's ``_metadata``): dropped."""
        self._pop()
        if not isinstance(self._top(), dict):
            raise ValueError("attributes are set on something other than a dict")

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise ValueError("items are appended to something other than a list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items are set in something other than a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):  # hashing a nested tuple may take for ever
                raise ValueError("a key is neither string nor integer")
            target[key] = value


_ACTIONS = {
    "MARK": _Machine._mark,
    "EMPTY_LIST": _Machine._empty_list,
    "EMPTY_DICT": _Machine._empty_dict,
    "TUPLE": _Machine._tuple,
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "MEMOIZE": _Machine._memoize,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "BINPERSID": _Machine._binpersid,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}
