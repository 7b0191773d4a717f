"""What is wrong in the configuration: see :mod:`socksproxy.values.errors`."""

from __future__ import annotations

from socksproxy.values.errors import ConfigError


def test_words() -> None:
    assert str(ConfigError("not a port", "x")) == "x: not a port"
    assert str(ConfigError("there is none")) == "there is none"
    assert isinstance(ConfigError(""), ValueError)


def test_path() -> None:
    """Each caller puts before the path what it alone knows."""
    problem = ConfigError("wrong", path=(2,))
    assert problem.within(("udp", "ports")) is problem
    assert problem.path == ("udp", "ports", 2)
