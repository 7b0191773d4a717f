"""The settings of a server: see :mod:`socksproxy.settings`."""

from __future__ import annotations

import attrs
import pytest
from twisted.internet.testing import MemoryReactorClock

from socksproxy import ServerSettings, SOCKSFactory, Timeouts

# mypy complains of a "type: ignore" where nothing is wrong, so each of them says that mypy sees the mistake.


def test_misspelled() -> None:
    """A field that does not exist is a mistake to a type checker, and when it runs."""
    reactor = MemoryReactorClock()
    with pytest.raises(TypeError, match="timeuots"):
        ServerSettings(timeuots=Timeouts())  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="timeuots"):
        SOCKSFactory(reactor, timeuots=Timeouts())  # type: ignore[call-overload]
    factory = SOCKSFactory(reactor, timeouts=Timeouts(connect=5))
    with pytest.raises(TypeError, match="timeuots"):
        factory.reconfigure(timeuots=Timeouts())  # type: ignore[call-overload]
    assert factory.settings.timeouts.connect == 5
    factory.stop_sessions()


def test_another_type() -> None:
    """A type checker knows the types of the fields, as far as it knows those of the settings."""
    with pytest.raises(AttributeError):
        SOCKSFactory(MemoryReactorClock(), timeouts=5)  # type: ignore[call-overload]


def test_settings_in_place_of_fields() -> None:
    settings = ServerSettings(timeouts=Timeouts(idle=60), outgoing=["127.0.0.1"])
    factory = SOCKSFactory(MemoryReactorClock(), settings)
    assert attrs.astuple(factory.settings, recurse=False) == attrs.astuple(settings, recurse=False)
    factory.reconfigure(attrs.evolve(settings, log_probes=True))
    assert factory.settings.log_probes
    factory.stop_sessions()
