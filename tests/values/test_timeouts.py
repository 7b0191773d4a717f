"""Times in Python: see :mod:`socksproxy.values.timeouts`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from socksproxy import BindSettings, ServerSettings, Timeouts, UDPSettings
from socksproxy.policy.rules import Rule, RuleError, RuleTimeouts
from socksproxy.values.auth import AuthSettings
from socksproxy.values.errors import ConfigError
from socksproxy.values.limits import Limits, ServerLimits
from socksproxy.values.timeouts import NEVER

#: Zero seconds, and zero is what it says.
NOTHING_AFTER_THE_END = {(UDPSettings, "grace")}

#: The kernel's own value counts where none is given.
OF_THE_SYSTEM = {(Timeouts, "keepalive_interval"), (Timeouts, "user_timeout")}


def times() -> Iterator[tuple[type[Any], str]]:
    """Each field of the settings that is a number of seconds."""
    for kind in (ServerSettings, AuthSettings, BindSettings, ServerLimits, Limits, Timeouts, UDPSettings):
        for field in attrs.fields(kind):
            if kind is Timeouts or (field.type or "").startswith("float"):
                yield kind, field.name


def test_all_are_looked_at() -> None:
    found = set(times())
    assert {(AuthSettings, "timeout"), (BindSettings, "timeout"), (UDPSettings, "idle")} < found
    assert len(found) == len(attrs.fields(Timeouts)) + 4


@pytest.mark.parametrize(("kind", "name"), [*times()])
@pytest.mark.parametrize("value", [None, 0])
def test_never_has_one_form(kind: type[Any], name: str, value: int | None) -> None:
    """A time that does not come is NEVER; None and 0 are no such times."""
    if value is None and (kind, name) in OF_THE_SYSTEM:
        assert kind(**{name: None}) != kind(**{name: NEVER})
    elif value == 0 and (kind, name) in NOTHING_AFTER_THE_END:
        assert getattr(kind(**{name: 0}), name) == 0
    else:
        with pytest.raises(ConfigError, match=f"{name}: not a number of seconds"):
            kind(**{name: value})


@pytest.mark.parametrize("name", RuleTimeouts._fields)
def test_rules(name: str) -> None:
    """None: the rule says nothing of it. What it says is as in the settings."""
    never = RuleTimeouts(**{name: NEVER})
    assert Rule(name="r", allow=True, timeouts=never).timeouts == never
    with pytest.raises(RuleError, match="above 0, or NEVER"):
        Rule(name="r", allow=True, timeouts=RuleTimeouts(**{name: 0}))


@pytest.mark.parametrize("value", [-1, True, "60", float("nan")])
def test_no_times(value: Any) -> None:
    with pytest.raises(ConfigError, match="handshake: not a number of seconds above 0, or NEVER"):
        Timeouts(handshake=value)
