"""
The mark of a test, found by what it needs: ``unit``, ``sockets``, ``process`` or ``interop``.

Strategy: a test needs what the names in its code stand for, in the code of its fixtures, and in the code
of the helpers of the tests that either of them names. So a new test has its mark without further ado.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from twisted.internet import reactor

#: From the least to the most that a test needs.
MARKS = ("unit", "sockets", "process", "interop")

_TESTS = __name__.partition(".")[0] + "."
#: Names of functions and methods that open a socket, or have something else open one.
_SOCKETS = {"accept", "bind", "connect", "create_connection", "create_server", "deferToThread", "socketpair"}
_PROCESSES = {"execv", "fork", "posix_spawn", "spawnProcess"}


def mark_of(item: pytest.Item) -> str:
    """The mark of a test."""
    if "interop" in Path(item.path).parts:
        return "interop"
    for mark in reversed(MARKS):
        if mark in item.keywords:
            return mark  # the test says so itself
    return MARKS[max((_need(each) for each in _functions(item)), default=0)]


def _functions(item: pytest.Item) -> Iterator[Any]:
    """The test, and its fixtures."""
    function = getattr(item, "function", None)
    yield function
    if isinstance(function := _undecorated(function), FunctionType):
        own = vars(getattr(item, "cls", None) or object)
        yield from (own[name] for name in _names(function.__code__) if name in own)
    fixtures: Any = getattr(item, "_fixtureinfo", None)
    for definitions in fixtures.name2fixturedefs.values() if fixtures else ():
        yield definitions[-1].func


@functools.cache
def _need(thing: Any) -> int:
    """The position in :data:`MARKS` of what *thing*, a function or a class, needs by all that it names."""
    seen: set[int] = set()
    most, todo = 0, [thing]
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if each is subprocess:
            return MARKS.index("process")
        if each is reactor:
            most = 1
        elif isinstance(each, type):
            if each.__module__.startswith(_TESTS):
                todo.extend(vars(each).values())
        elif isinstance(each, (staticmethod, classmethod)):
            todo.append(each.__func__)
        elif isinstance(each, functools.partial):
            todo.append(each.func)
        elif isinstance(each, property):
            todo.append(each.fget)
        elif isinstance(each := _undecorated(each), FunctionType) and each.__module__.startswith(_TESTS):
            names = set(_names(each.__code__))
            if names & _PROCESSES:
                return MARKS.index("process")
            if names & _SOCKETS:
                most = 1
            todo.extend(each.__globals__[name] for name in names if name in each.__globals__)
            todo.extend(_attributes(each.__globals__, names))
    return most


def _undecorated(thing: Any) -> Any:
    while isinstance(thing, FunctionType) and hasattr(thing, "__wrapped__"):
        thing = thing.__wrapped__
    return thing


def _attributes(names: dict[str, Any], used: Iterable[str]) -> Iterator[Any]:
    """What is used of modules of the tests that are imported whole."""
    for module in [names[name] for name in used if isinstance(names.get(name), ModuleType)]:
        if module.__name__.startswith(_TESTS):
            yield from (vars(module)[name] for name in used if name in vars(module))


def _names(code: CodeType) -> Iterator[str]:
    """All names in a function's code, with what is defined inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
