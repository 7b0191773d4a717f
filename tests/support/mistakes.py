"""Configuration files, and what is found wrong with them."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options
from socksproxy.config.command_line import Mistakes
from socksproxy.config.options import PLACES
from socksproxy.net.resources import CheckedResources

SECRET = "hunter2"


def mistakes(data: bytes | str) -> list[str]:
    """What is said about a file that holds *data*."""
    reactor = MemoryReactorClock()
    content = data.encode() if isinstance(data, str) else data
    try:
        Options(reactor, CheckedResources(reactor), content).parseOptions(["--config=file"])
    except Mistakes as problem:
        return list(problem.lines)
    return []


scalars = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["dns:", "tcp:0", "unix:a", "memory:a:b", "auto", "0", "-1", "1-2", "::1", "127.0.0.1"])
    | st.datetimes()
    | st.dates()
    | st.times()
)


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(list(PLACES)) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def toml(value: Any) -> str:
    """*value* as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{quoted(key)} = {toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, (int, float)):
        return str(value)
    return str(value.isoformat())


def quoted(text: str) -> str:
    plain = string.ascii_letters + string.digits
    return '"' + "".join(c if c in plain else f"\\U{ord(c):08x}" for c in text) + '"'


def without_surrogates(value: Any) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in toml_text(value))


def toml_text(value: Any) -> Iterator[str]:
    """All characters of all texts in *value*."""
    if isinstance(value, str):
        yield from value
    elif isinstance(value, list):
        for inner in value:
            yield from toml_text(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from key
            yield from toml_text(inner)


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever is made, is made here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield
