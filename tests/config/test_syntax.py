"""What is said of a text that is not TOML: see :mod:`socksproxy.config.syntax`."""

from __future__ import annotations

import pytest

from ..support.mistakes import mistakes

QUOTES = "a name with other characters than letters, digits, - and _ stands in quotes"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            "[users.bob]\ndisabled = true\n\n[users.eve]\n[users.bob]\n",
            ["file:5:11: cannot declare [users.bob] twice: it is on line 1 already"],
        ),
        (
            '[users."b c"]\n[users.eve]\n[users."b c"]\n',
            ['file:3:13: cannot declare [users."b c"] twice: it is on line 1 already'],
        ),
        ("[log]\n[udp]\n[log]\n", ["file:3:5: cannot declare [log] twice: it is on line 1 already"]),
        (
            "[udp]\nudp-port = 1\n\nudp-port = 2\n",
            ["file:4:13: cannot overwrite a value: udp-port is on line 2 already"],
        ),
        (
            "[[rule]]\nname = 'a'\n[[rule]]\nname = 'b'\nallow = true\nports = [\n1]\nports = [\n2]\n",
            ["file:9:3: cannot overwrite a value: ports is on line 6 already"],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = true\n[[rule]]\nname = 'a'\nallow = true\n",
            ['file:5: [[rule]] "a" name = "a": another name: the rule number 1 has this one'],
        ),
    ],
)
def test_twice(data: str, expected: list[str]) -> None:
    """Both lines are told of what is there twice."""
    assert mistakes(data) == expected


@pytest.mark.parametrize(
    ("header", "right"),
    [
        ("[users.bob@x.org]", '[users."bob@x.org"]'),
        ("  [ users.bob@x.org ] # the boss", '[users."bob@x.org"]'),
        ("[users.DOMAIN\\user]", '[users."DOMAIN\\\\user"]'),
        ("[users.J Doe]", '[users."J Doe"]'),
        ("[users.m\u00fcller]", '[users."m\u00fcller"]'),
        ("[groups.a+b]", '[groups."a+b"]'),
    ],
)
def test_quotes(header: str, right: str) -> None:
    """A name that TOML cannot read is told as it has to be written."""
    (line,) = mistakes(f"{header}\ndisabled = true\n")
    assert line.startswith("file:1:")
    assert line.endswith(f"; {QUOTES}: {right}")
    assert mistakes(f"{right}\ndisabled = true\n") == []


@pytest.mark.parametrize(
    ("pair", "right"),
    [("bob@x.org = {}", '"bob@x.org" ='), ("J Doe={}", '"J Doe" ='), ("m\u00fcller = {}", '"m\u00fcller" =')],
)
def test_quotes_of_keys(pair: str, right: str) -> None:
    """So is a key."""
    (line,) = mistakes(f"[users]\n{pair}\n")
    assert line.startswith("file:2:")
    assert line.endswith(f"; {QUOTES}: {right}")


@pytest.mark.parametrize("header", ["[users.bob", "[log.a@b]", "[users.bob]]", "a = [1", "a.b = ", "port 5"])
def test_no_quotes(header: str) -> None:
    """Other mistakes are not taken for this one."""
    (line,) = mistakes(header)
    assert "quotes" not in line


def test_names_with_dots() -> None:
    """A dot divides a name that is not in quotes."""
    assert mistakes("[users.bob.smith]\ndisabled = true\n[users.a.b.c.limits]\nsessions = 1\n") == [
        'file:1: [users.bob] smith: a name with a dot stands in quotes: [users."bob.smith"]',
        'file:3: [users.a] b: a name with a dot stands in quotes: [users."a.b.c"]',
    ]
    assert mistakes("[users.bob.limits]\nsessions = 1\n") == []
