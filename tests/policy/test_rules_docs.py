"""What ``docs/rules.rst`` says."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from socksproxy import Address, Client, Command, Rule
from socksproxy.policy.rules import RESERVED
from socksproxy.policy.sets import BUILT_IN
from tests.support.docs import DOCS, blocks, table

TEXT = DOCS / "rules.rst"
PYTHON = blocks(TEXT, ".. code-block:: python")
MONDAY = 1_700_438_400.0


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    ("groups", "destination", "hour", "rule"),
    [
        ((), "x.games.example:80", 12, "no-games"),
        ((), "x.games.example:80", 19, "office"),
        (("admins",), "play.example:9", 9, "no-games"),
        (("admins",), "203.0.113.1:9", 9, "admins"),
        (("admins",), "10.0.0.1:80", 9, "private"),
        ((), "203.0.113.1:8080", 9, "office"),
        ((), "203.0.113.1:22", 9, "default"),
        ((), "198.51.100.1:22", 9, "servers"),
    ],
)
def test_first_example(groups: tuple[str, ...], destination: str, hour: int, rule: str) -> None:
    import datetime

    policy = run(PYTHON[0])["policy"]
    noon = datetime.datetime(2023, 11, 20, hour)  # a Monday, by the machine's own time
    policy.clock = noon.timestamp
    host, _, port = destination.partition(":")
    client = Client("192.0.2.7", 5000, "bob", groups=frozenset(groups))
    assert policy.decide(client, Command.CONNECT, Address.of(host, int(port))).rule == rule


def test_special_addresses() -> None:
    names = run(PYTHON[2])
    assert [names[name].name for name in ("monitoring", "everything")] == ["monitoring", "everything"]


@pytest_twisted.ensureDeferred
async def test_files(tmp_path: Path) -> None:
    (tmp_path / "ads.txt").write_text(".ads.example\n")
    (tmp_path / "bad.txt").write_text("203.0.113.0/24\n")
    names = run(PYTHON[3].replace("/etc/socksproxy", str(tmp_path)))
    try:
        await names["loaded"]
        decisions = [
            names["policy"].decide(Client(None), Command.CONNECT, Address.of(host, 80)).rule
            for host in ("x.ads.example", "203.0.113.9", "203.0.114.9")
        ]
    finally:
        names["files"].stop()
    assert decisions == ["bad", "bad", "rest"]


def test_explanation() -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run(PYTHON[4])
    assert said.getvalue() == blocks(TEXT, ".. code-block:: none")[0]


def test_everything_is_named() -> None:
    """Every field of a rule, every set that is always there, every word in place of a rule's name."""
    text = TEXT.read_text("utf-8")
    fields = [
        field for row in table(TEXT, "Field") for field in row.replace("`", "").replace("-", "_").split(", ")
    ]
    effects = {"name", "allow", "outgoing", "via", "ask", "limits", "user_limits", "quota", "timeouts"}
    effects |= {"log", "zone"}
    assert set(fields) | effects == {field.name for field in Rule.__attrs_attrs__}
    text = text.replace("user-limits", "user_limits")
    assert all(f"``{word}" in text for word in [*BUILT_IN, *RESERVED, *(effects - {"name"})])
