"""The words that rules have for listeners: see :mod:`socksproxy.config.listeners`."""

from __future__ import annotations

import pytest

from ..support.mistakes import mistakes

LISTENERS = """[listeners]
listen = ["front=tcp:1080:interface=192.0.2.1", "any=tcp:1081", "unix:/run/s:mode=660",
  "tcp6:1082:interface=2001\\\\:db8\\\\:\\\\:1"]
[authentication]
auth = ["anonymous"]
"""


RIGHT = "must be a listener's name, an address and a port as in 192.0.2.1:1080, or unix: and a path"


THERE = (
    "there is no such listener; there are 192.0.2.1:1080, 0.0.0.0:1081, unix:/run/s and [2001:db8::1]:1082"
)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("front", None),
        ("192.0.2.1:1080", None),
        ("198.51.100.7:1081", None),
        ("[2001:db8::1]:1082", None),
        ("unix", None),
        ("unix:/run/s", None),
        ("frnot", "there is no such listener; did you mean front?"),
        ("192.0.2.1", "the port is missing, as in 192.0.2.1:1080"),
        ("2001:db8::1", "the port is missing, as in [2001:db8::1]:1080"),
        ("192.0.2.1:1081x", RIGHT),
        ("tcp:1080", RIGHT),
        (":1080", RIGHT),
        ("*:1080", RIGHT),
        ("localhost:1080", RIGHT),
        ("192.0.2.1:70000", RIGHT),
        ("192.0.2.1:1082", THERE),
        ("192.0.2.2:1080", THERE),
        ("unix:/run/t", THERE),
        ("[2001:DB8:0::1]:1082", "must be written [2001:db8::1]:1082"),
        ("[::ffff:192.0.2.1]:1080", "must be written 192.0.2.1:1080"),
        ("192.0.2.1:01080", "must be written 192.0.2.1:1080"),
        (
            "0.0.0.0:1081",
            'no client reaches this address; a name stands for all: "front" for listen = ["front=tcp:1080"]',
        ),
    ],
)
def test_words_for_listeners(word: str, problem: str | None) -> None:
    """A word by which no client comes is told, with what would be right."""
    found = mistakes(f'{LISTENERS}[[rule]]\nname = "a"\nallow = true\nlisteners = ["front", "{word}"]')
    expected = [] if problem is None else [f'file:9: [[rule]] "a" listeners[1] = "{word}": {problem}']
    assert found == expected


@pytest.mark.parametrize(
    "listeners",
    [
        "",
        '[listeners]\nlisten = ["haproxy:tcp:1080:interface=127.0.0.1"]\n',
        '[listeners]\nlisten = ["systemd:domain=INET:name=socks"]\n',
        '[listeners]\nlisten = ["tcp:0:interface=127.0.0.1"]\n',
    ],
)
def test_listeners_that_are_not_known(listeners: str) -> None:
    """Where nothing is said of the listeners, or what they are shows later, words cannot be judged."""
    rule = '[[rule]]\nname = "a"\nallow = true\nlisteners = ["192.0.2.9:99", "unix", "unix:/run/t"]'
    assert mistakes(listeners + rule) == []


def test_words_for_the_only_listener() -> None:
    """Interface and port are a listener, too."""
    rule = '[[rule]]\nname = "a"\nallow = true\nlisteners = ["127.0.0.1:1081", "unix"]'
    (line,) = mistakes(f"[listeners]\nport = 1081\n{rule}")
    assert line.endswith('"unix": there is no Unix socket among the listeners')
