"""Upstreams in a configuration file, what ``check`` and ``explain`` say of them, and the examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from twisted.internet.testing import MemoryReactorClock

from socksproxy.app import Options
from socksproxy.cli import main
from socksproxy.config.command_line import Mistakes
from socksproxy.config.upstreams import UPSTREAM_KEYS
from socksproxy.net.resources import CheckedResources
from socksproxy.values.outgoing import Outgoing
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.password import Credentials
from socksproxy.wire.words import Address

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples" / "ways-out"


def parsed(config: str, directory: Path, *more: str) -> Options:
    reactor = MemoryReactorClock()
    options = Options(reactor, CheckedResources(reactor), config.encode(), str(directory))
    options.parseOptions(["--config=file", *more])
    return options


def problems(config: str, directory: Path, *more: str) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        parsed(config, directory, *more)
    return list(caught.value.lines)


ONE = '[upstreams.one]\ntype = "socks5"\naddress = "127.0.0.1:9"\n'


def test_every_key_is_a_field() -> None:
    assert {key.replace("-", "_") for key in UPSTREAM_KEYS} == {field.name for field in fields(Upstream)}


@pytest.mark.parametrize("name", ["single", "office"])
def test_examples(name: str, tmp_path: Path) -> None:
    """The complete files of the page are right."""
    for file in ("provider.password", "branch.password"):
        (tmp_path / file).write_text("hunter2\n")
    options = parsed((EXAMPLES / f"{name}.toml").read_text(), tmp_path)
    settings = options.plan.settings
    assert settings.via in settings.upstreams
    assert Credentials(b"alice", b"hunter2") in [each.login for each in settings.upstreams.values()]
    assert options.warnings == []


def test_meaning(tmp_path: Path) -> None:
    options = parsed(f'{ONE}resolve = "here"\ntry-timeout = 2\n', tmp_path, "--via=one")
    settings = options.plan.settings
    assert settings.via == "one"
    expected = Upstream(type="socks5", address=Address.of("127.0.0.1", 9), resolve="here", try_timeout=2.0)
    assert settings.upstreams == {"one": expected}


@pytest.mark.parametrize(
    ("config", "line", "told"),
    [
        (f'{ONE}via = "two"\n', 4, "no such upstream"),
        (f'{ONE}via = "one"\n', 4, "the way is a loop: one > one"),
        (f"{ONE}adress = 1\n", 4, "did you mean address?"),
        ('[upstreams.one]\ntype = "socks6"\n', 2, "there are socks4, socks4a"),
        ('[upstreams.one]\ntype = "socks5"\n', 1, "address is missing"),
        ('[upstreams.one]\naddress = "a:1"\n', 1, "type is missing"),
        ('[upstreams.one]\ntype = "socks5"\naddress = "a"\n', 3, "not HOST:PORT"),
        ('[upstreams.one]\ntype = "socks5"\naddress = "::1:80"\n', 3, "not HOST:PORT"),
        ('[upstreams.direct]\ntype = "socks5"\naddress = "a:1"\n', 1, "another name"),
        ('[upstreams.one]\ntype = "direct"\naddress = "a:1"\n', 3, "not with the type direct"),
        (f'{ONE}login = "hunter2"\n', 4, "neither"),
        (f'{ONE}login = {{ user = "a", password = "hunter2" }}\n', 4, "no such key"),
        (f'{ONE}login = {{ user = "a", password-file = "lost" }}\n', 4, "no such file"),
        (f'{ONE}ca-file = "lost"\n', 4, "only with the type https"),
        ('[upstreams.one]\ntype = "http"\naddress = "a:1"\nlogin = "gssapi"\n', 4, "a login of socks5"),
        (f'{ONE}endpoint = "unix:/run/a"\n', 3, "not together with endpoint"),
        ('[upstreams.one]\ntype = "socks5"\nendpoint = "hunter2:1"\n', 3, "not a client endpoint"),
        ('[upstreams.one]\ntype = "https"\nendpoint = "unix:/run/a"\n', 1, "https needs an address"),
        ('[upstreams.one]\ntype = "direct"\nproxy-protocol = 1\n', 3, "not with the type direct"),
        (f"{ONE}proxy-protocol = 3\n", 4, "1 or 2"),
        (f"{ONE}proxy-protocol = true\n", 4, "1 or 2"),
        (f'{ONE}resolve = "there"\n', 4, "upstream, here or judge"),
        (f"{ONE}mark = -1\n", 4, "not a whole number from 0 to 4294967295"),
        (f'{ONE}interface = "a/b"\n', 4, "not the name of a network interface"),
        (f'{ONE}interface = "{"a" * 16}"\n', 4, "not the name of a network interface"),
        (f"{ONE}outgoing = []\n", 4, "there is no address in the list"),
        (f'{ONE}outgoing = "127.0.0.1"\n', 4, "not a list"),
        (f'{ONE}outgoing = ["127.0.0.1", "127.0.0.2"]\n', 4, "one IPv4 address is enough"),
        (f'{ONE}outgoing = ["192.0.2.55"]\n', 4, "not an address of this machine"),
        (f"{ONE}max-sessions = 0\n", 4, "not a whole number from 1 to 1000000"),
        (f"{ONE}max-sessions = true\n", 4, "not a whole number"),
        (f"{ONE}weight = 1.5\n", 4, "not a whole number"),
        (f"{ONE}weight = 1000001\n", 4, "not a whole number from 1 to 1000000"),
        ('[upstreams.one]\ntype = "socks5"\naddress = "127.0.0.1:1080"\n', 3, "a loop"),
        ('[upstreams.one]\ntype = "socks5"\naddress = "localhost:1080"\n', 3, "a loop"),
        (f'{ONE}[outgoing]\nvia = "on"\n', 5, "did you mean one?"),
        (f'{ONE}[users.bob]\nvia = "on"\n', 5, "did you mean one?"),
        (f'{ONE}[groups.all]\nvia = "on"\n', 5, "did you mean one?"),
        (f'{ONE}[[rule]]\nname = "a"\nallow = true\nvia = "on"\n', 7, "did you mean one?"),
        ('[upstreams.one]\ntype = "http"\naddress = "a:1"\nudp = true\n', 4, "only with the type socks5"),
        (f'{ONE}login = "gssapi"\nudp = true\n', 5, "not with the login gssapi: the proxy carries no datagr"),
        (
            '[upstreams.one]\ntype = "socks4"\naddress = "a:1"\nudp-address = "server"\n',
            4,
            "only with the type",
        ),
        ('[upstreams.one]\ntype = "http"\naddress = "a:1"\nbind = true\n', 4, "socks4, socks4a and socks5"),
        ('[upstreams.one]\ntype = "direct"\nbind = true\n', 3, "socks4, socks4a and socks5"),
        ('[upstreams.one]\ntype = "socks4a"\naddress = "a:1"\nresolve-commands = true\n', 4, "only with"),
        (f'{ONE}resolve = "here"\nresolve-commands = true\n', 5, "only with resolve = upstream"),
        (f'{ONE}udp-address = "there"\n', 4, "reported, server or the literal address of a proxy"),
        (f'{ONE}udp-address = "0.0.0.0"\n', 4, "reported, server or the literal address of a proxy"),
        ('[upstreams.one]\ntype = "socks5"\naddress = "0.0.0.0:1080"\n', 3, "no proxy has such an address"),
        ('[upstreams.one]\ntype = "http"\naddress = "[::]:8080"\n', 3, "no proxy has such an address"),
        ('[upstreams.one]\ntype = "http"\naddress = "224.0.0.1:8080"\n', 3, "no proxy has such an address"),
        (
            '[upstreams.one]\ntype = "socks4"\naddress = "a:1"\nresolve = "upstream"\n',
            4,
            "passes on no names",
        ),
        ('[upstreams.one]\ntype = "socks4"\naddress = "a:1"\nresolve = "judge"\n', 4, "passes on no name"),
        ('[upstreams.one]\ntype = "direct"\nresolve = "upstream"\n', 3, "passes on no name"),
        ('[upstreams.refuse]\ntype = "socks5"\naddress = "a:1"\n', 1, "another name: refuse is what happens"),
        (f"{ONE}udp = 1\n", 4, "not true or false"),
        ("upstreams = 1\n", 1, "[upstreams.NAME]"),
        ("[upstreams]\none = 1\n", 2, "not a table"),
    ],
)
def test_mistakes(config: str, line: int, told: str, tmp_path: Path) -> None:
    """e 46 and others: each mistake in one line, which shows no secret."""
    (found,) = problems(config, tmp_path)
    assert found.startswith(f"file:{line}:")
    assert told in found
    assert "hunter2" not in found


def test_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace has addresses of its own; a Python that cannot enter one is a mistake."""
    config = f'{ONE}netns = "vpn"\noutgoing = ["192.0.2.55"]\n'
    monkeypatch.setattr("os.setns", None, raising=False)
    one = parsed(config, tmp_path, "--via=one").plan.settings.upstreams["one"]
    assert (one.netns, one.outgoing) == ("vpn", Outgoing("192.0.2.55"))
    monkeypatch.delattr("os.setns")
    (found,) = problems(config, tmp_path)
    assert found.startswith("file:4:")
    assert found.endswith("needs Linux, and Python 3.12 or later")


def test_sockets_of_the_first(tmp_path: Path) -> None:
    """Only the first upstream of a chain is reached by a socket of this machine."""
    for key in ('outgoing = ["127.0.0.1"]', 'interface = "lo"', "mark = 1"):
        (found,) = problems(f'{ONE}[upstreams.two]\n{ONE[16:]}via = "one"\n{key}\n', tmp_path)
        assert "not together with via" in found


def test_option(tmp_path: Path) -> None:
    assert problems(ONE, tmp_path, "--via=two") == [
        "--via two: there is no such upstream; each has a table that begins with [upstreams.NAME]"
    ]


def test_warnings(tmp_path: Path) -> None:
    """A rule by network before a rule whose names an upstream looks up."""
    rules = (
        '[[rule]]\nname = "no"\nallow = false\nnetworks = ["private"]\n'
        '[[rule]]\nname = "all"\nallow = true\nvia = "one"\n'
    )
    (warning,) = parsed(ONE + rules, tmp_path).warnings
    assert warning.startswith("file:7:")
    assert 'the rule "all" has the upstream one look them up' in warning
    assert parsed(ONE + 'resolve = "here"\n' + rules, tmp_path).warnings == []


def test_warnings_of_commands(tmp_path: Path) -> None:
    """A rule whose way out carries none of its commands."""
    rule = '[[rule]]\nname = "a"\nallow = true\nvia = "{}"\ncommands = {}\n'
    pool = '[pools.eu]\nmembers = ["one"]\n'
    for via in ("one", "eu"):
        (warning,) = parsed(ONE + pool + rule.format(via, '["bind", "resolve"]'), tmp_path).warnings
        assert f"the way out {via} carries none of these commands: clients get reply 7" in warning
        for keys, commands in (("", '["bind", "associate"]'), ("bind = true\n", '["bind"]')):
            assert parsed(ONE + keys + pool + rule.format(via, commands), tmp_path).warnings == []
    assert parsed(ONE + rule.format("direct", '["bind"]'), tmp_path).warnings == []


def test_explain_commands(tmp_path: Path, capsys: Any) -> None:
    """The way of each command, and what it does not carry."""
    file = tmp_path / "socks.toml"
    file.write_text(
        f"{ONE}bind = true\nresolve-commands = true\n"
        '[upstreams.web]\ntype = "http"\naddress = "127.0.0.1:8"\n'
        '[[rule]]\nname = "a"\nallow = true\nports = [53]\nvia = "web"\n'
        '[[rule]]\nname = "b"\nallow = true\nvia = "one"\n'
    )
    for command, destination in (
        ("associate", "192.0.2.1:443"),
        ("bind", "192.0.2.1:1"),
        ("resolve", "a.test"),
    ):
        told = explained(capsys, file, command, destination)
        assert "allowed (by rule b)" in told
        assert "via one, by rule b" in told
    told = explained(capsys, file, "associate", "192.0.2.1:53")
    assert "refused (the way out does not carry associate: datagrams are dropped)" in told
    # A rule behind it has a way that carries datagrams.
    assert "a UDP association: allowed" in explained(capsys, file, "associate")
    file.write_text(file.read_text().replace('"one"\n', '"web"\n'))
    assert "the way out does not carry associate: reply 7" in explained(capsys, file, "associate")


def test_warnings_of_users(tmp_path: Path) -> None:
    """The way of a user or a group is one of the ways of a rule that names none."""
    rules = (
        '[[rule]]\nname = "no"\nallow = false\nnetworks = ["private"]\n[[rule]]\nname = "all"\nallow = true\n'
    )
    assert parsed(ONE + rules, tmp_path).warnings == []
    for table in ('[groups.all]\nvia = "one"\n', '[users.bob]\nvia = "one"\n'):
        (warning,) = parsed(ONE + table + rules, tmp_path).warnings
        assert 'the rule "all" has the upstream one look them up' in warning
    assert parsed(ONE + table + rules + 'via = "direct"\n', tmp_path).warnings == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('interface = "lost0"\n', "there is no such interface now"),
        ('interface = "lo"\n', None),
        ('netns = "lost"\n', "there is no such namespace now"),
        ('netns = "/proc/self/ns/net"\ninterface = "lost0"\n', None),
        ('interface = "lo"\nresolve = "here"\n', "looked up by the C library"),
        ('mark = 7\nresolve = "judge"\n', "looked up by the C library"),
        ('mark = 7\nresolve = "judge"\n[names]\nresolver = "dns:127.0.0.1"\n', None),
    ],
)
def test_warnings_of_sockets(
    keys: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot leave now, and look-ups that leave in another way."""
    monkeypatch.setattr("os.setns", None, raising=False)
    warnings = parsed(ONE + keys, tmp_path).warnings
    assert [told in each for each in warnings if told] == ([] if told is None else [True])
    assert bool(warnings) is (told is not None)


def explained(capsys: Any, file: Path, *words: str) -> str:
    assert main(["explain", str(file), *words]) in (0, None)
    told: str = capsys.readouterr().out
    return told


def test_explain(tmp_path: Path, capsys: Any) -> None:
    """The way, whose it is, and what does not go there."""
    file = tmp_path / "office.toml"
    text = (EXAMPLES / "office.toml").read_text().replace("branch.password", str(tmp_path / "secret"))
    (tmp_path / "secret").write_text("hunter2\n")
    file.write_text(text)
    told = explained(capsys, file, "connect", "shop.example.com:443")
    assert "  via office > branch, by rule branch, which looks the name up" in told
    assert "hunter2" not in told
    assert "  via office, by the server" in explained(capsys, file, "connect", "192.0.2.1:443")
    assert "  directly, by rule inside" in explained(capsys, file, "connect", "a.office.example:443")
    assert "refused (the way out does not carry bind: reply 7)" in explained(
        capsys, file, "bind", "192.0.2.1:443"
    )


def test_explain_sockets(tmp_path: Path, capsys: Any) -> None:
    """How the sockets of a way leave, and from which address; a direct way carries all commands."""
    file = tmp_path / "socks.toml"
    keys = 'outgoing = ["127.0.0.7"]\ninterface = "lo"\nmark = 7\n'
    file.write_text(f'{ONE}{keys}[outgoing]\nvia = "one"\noutgoing = ["127.0.0.1"]\n')
    told = explained(capsys, file, "connect", "192.0.2.1:443")
    assert "  via one by the interface lo with the mark 7, by the server" in told
    assert "  from 127.0.0.7\n" in told
    file.write_text(f'[upstreams.home]\ntype = "direct"\n{keys}[outgoing]\nvia = "home"\n')
    told = explained(capsys, file, "connect", "192.0.2.1:443")
    assert "  directly by the interface lo with the mark 7, by the server" in told
    assert "reply 7" not in explained(capsys, file, "bind", "192.0.2.1:443")
