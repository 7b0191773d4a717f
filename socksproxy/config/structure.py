"""
From what TOML has to frozen classes.

Whatever does not fit is noted with its path, and the rest is made of what does.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

from attrs import fields, has
from cattrs import AttributeValidationNote, BaseValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from ..values.errors import ConfigError
from .lines import Path
from .tables import spelled

T = TypeVar("T")

#: What TOML promises of whole numbers.
_MOST_BITS = 63

_WANTED: dict[Any, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
_KINDS: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


class Misfit(NamedTuple):
    """
    What does not fit.

    :ivar path: where.
    :ivar reason: what would, or None: there is nothing of that name.
    """

    path: Path
    reason: str | None


class Elements(Exception):
    """
    Elements of a list that do not fit.

    :ivar problems: by their numbers.
    """

    def __init__(self, problems: dict[int, ConfigError]) -> None:
        super().__init__(problems)
        self.problems = problems


def structured(document: dict[str, Any], kind: type[T]) -> tuple[T, list[Misfit]]:
    """
    An instance of *kind*, made of all in *document* that fits, and what does not.

    :param document: as ``tomllib`` gives it.
    :param kind: an attrs class that needs nothing.
    """
    misfits: list[Misfit] = []
    document = _copied(document)
    while True:
        try:
            return _CONVERTER.structure(document, kind), misfits
        except BaseValidationError as problem:
            found = list(_misfits(problem, ()))
        misfits += found
        # The last first, so that the numbers of the others stay what they are.
        for misfit in reversed(found):
            _remove(document, misfit.path)


def _misfits(problem: BaseException, path: Path) -> Iterator[Misfit]:
    if isinstance(problem, BaseValidationError):
        for inner in problem.exceptions:
            yield from _misfits(inner, (*path, *_steps(inner)))
    elif isinstance(problem, ForbiddenExtraKeysError):
        for name in problem.extra_fields:
            yield Misfit((*path, name), None)
    elif isinstance(problem, Elements):
        for number, wrong in problem.problems.items():
            yield Misfit((*path, number), wrong.reason)
    elif isinstance(problem, ConfigError):
        yield Misfit(path, problem.reason)
    else:
        raise problem  # ours


def _steps(problem: BaseException) -> Iterator[str]:
    """How one gets from a table to the field that cattrs found *problem* in."""
    for note in getattr(problem, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            yield spelled(note.name)


def _copied(document: Any) -> Any:
    """A copy of *document*, from which things can be removed."""
    if isinstance(document, dict):
        return {key: _copied(value) for key, value in document.items()}
    return [_copied(value) for value in document] if isinstance(document, list) else document


def _remove(document: Any, path: Path) -> None:
    """Remove what is at *path* from *document*, a table or a list."""
    *above, last = path
    for step in above:
        document = document[step]
    del document[last]


def _plain(value: Any, kind: Any) -> Any:
    wanted = _KINDS[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"not {_WANTED[kind]}")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ConfigError("a number that is too large")
    return value


def _list(value: Any, kind: Any) -> Any:
    element = get_args(kind)[0]
    if not isinstance(value, list):
        raise ConfigError("not a list in brackets")
    entries, problems = [], {}
    for number, entry in enumerate(value):
        try:
            entries.append(_CONVERTER.structure(entry, element))
        except ConfigError as problem:
            problems[number] = problem
    if problems:
        raise Elements(problems)
    return tuple(entries)


def _union(value: Any, kind: Any) -> Any:
    kinds = [each for each in get_args(kind) if each is not types.NoneType]
    problem = ConfigError("")
    for each in kinds:
        try:
            return _CONVERTER.structure(value, each)
        except ConfigError as wrong:
            problem = wrong
    if len(kinds) == 1:
        raise problem
    raise ConfigError(f"neither {' nor '.join(_WANTED[each] for each in kinds)}")


def _table_hook(kind: Any, converter: Converter) -> Any:
    renamed: dict[str, Any] = {field.name: override(rename=spelled(field.name)) for field in fields(kind)}
    make: Any = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **renamed
    )

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise ConfigError("not a table")
        return make(value, kind)

    return structure


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in _KINDS:
        converter.register_structure_hook(kind, _plain)
    converter.register_structure_hook_func(_is_list, _list)
    converter.register_structure_hook_func(_is_union, _union)
    converter.register_structure_hook_factory(has)(_table_hook)
    return converter


_CONVERTER = _converter()
