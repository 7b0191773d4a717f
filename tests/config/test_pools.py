"""Pools in a configuration file, and what ``check`` and ``explain`` say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from socksproxy.config.pools import POOL_KEYS
from socksproxy.routes.member_files import MembersFile
from socksproxy.values.errors import ConfigError
from socksproxy.values.pools import Choose, PoolCheck, UpstreamPool, pool_looks_up
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Address

from ..support.upstreams import upstream
from .test_upstreams import EXAMPLES, explained, parsed, problems

ONE = '[upstreams.one]\ntype = "socks5"\naddress = "127.0.0.1:9"\n'
TWO = '[upstreams.two]\ntype = "http"\naddress = "two.example:9"\n'
POOL = f'{ONE}{TWO}[pools.eu]\nmembers = ["one", "two"]\n'


def test_every_key_is_a_field() -> None:
    assert {key.replace("-", "_") for key in POOL_KEYS} == {field.name for field in fields(UpstreamPool)}


def test_meaning(tmp_path: Path) -> None:
    """All keys, and a way that names the pool wherever ways stand."""
    (tmp_path / "exits").write_text("socks5://alice:hunter2@a.example:1080\n")
    more = (
        'members-file = "exits"\nchoose = "hash-user"\ntries = 2\ndown-after = 5\nretry-after = 2.5\n'
        'otherwise = "us"\ncheck = { every = 60, connect = "www.example.org:443", at-once = 4 }\n'
        '[pools.us]\nmembers = ["one"]\nbackup = ["two"]\n'
        '[outgoing]\nvia = "us"\n[users.bob]\nvia = "eu"\n[groups.all]\nvia = "eu"\n'
        '[[rule]]\nname = "all"\nallow = true\nvia = "eu"\n'
    )
    options = parsed(POOL + more, tmp_path)
    settings = options.plan.settings
    eu = settings.pools["eu"]
    file = eu.members_file
    assert isinstance(file, MembersFile)
    assert eu == UpstreamPool(
        members=["one", "two"],
        members_file=file,
        choose=Choose.HASH_USER,
        tries=2,
        down_after=5,
        retry_after=2.5,
        check=PoolCheck(every=60.0, connect=Address.of("www.example.org", 443), at_once=4),
        otherwise="us",
    )
    assert settings.pools["us"] == UpstreamPool(members=["one"], backup=["two"])
    assert settings.via == "us"
    # The files are watched as those of sets are.
    assert options.plan.set_files == [file]
    assert list(file.table) == ["alice@a.example:1080"]
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("config", "line", "told"),
    [
        (f'{ONE}[pools.eu]\nmembers = ["one", "tow"]\n', 5, "there is no such upstream"),
        (f'{ONE}[pools.eu]\nmembers = ["one", "direct"]\n', 5, "an upstream of type direct"),
        (f'{ONE}[pools.eu]\nmembers = ["one", "one"]\n', 5, "stands there already"),
        (f'{ONE}[pools.eu]\nmembers = ["one"]\nbackup = ["one"]\n', 6, "stands there already"),
        (f'{POOL}[pools.us]\nmembers = ["eu"]\n', 10, "a pool is no member"),
        (f"{ONE}[pools.eu]\nmembers = []\n", 5, "there is no member"),
        (f"{ONE}[pools.eu]\ntries = 3\n", 4, "there is no member"),
        (f'{POOL}choose = "best"\n', 9, "there are first, round-robin, random, least-sessions"),
        (f"{POOL}tries = 0\n", 9, "not a whole number from 1 to 1000"),
        (f"{POOL}down-after = 1.5\n", 9, "not a whole number"),
        (f"{POOL}retry-after = 301\n", 9, "not a number of seconds up to 300"),
        (f"{POOL}retry-after = 0\n", 9, "above 0"),
        (f'{POOL}otherwise = "refused"\n', 9, "not refuse, direct"),
        (f'{POOL}otherwise = "eu"\n', 9, "a loop: eu > eu"),
        (f'{POOL}othrewise = "direct"\n', 9, "did you mean otherwise?"),
        (f"{POOL}check = {{ every = 60 }}\n", 9, "connect is missing"),
        (f'{POOL}check = {{ every = 0, connect = "a:1" }}\n', 9, "above 0"),
        (f'{POOL}check = {{ every = 0.5, connect = "a:1" }}\n', 9, "from 1 on"),
        (f'{POOL}check = {{ every = 60, connect = "a" }}\n', 9, "not HOST:PORT"),
        (f'{POOL}check = {{ every = 60, connect = "a:1", at-once = 0 }}\n', 9, "from 1 to 1024"),
        (f'{POOL}members-file = "lost"\n', 9, "no such file"),
        (f"{POOL}members-file = 7\n", 9, "not text in quotes"),
        (f'{POOL}members-file = "wrong"\n', 9, "line 2: the proxy's URL has a wrong host or port"),
        (f'{POOL}members-file = "loop"\n', 9, "127.0.0.1:1080 is a listener of this server: a loop"),
        (f'{ONE}[pools.one]\nmembers = ["one"]\n', 4, "an upstream has this name, too"),
        (f'{ONE}[pools.direct]\nmembers = ["one"]\n', 4, "another name"),
        (f'{ONE}[pools.refuse]\nmembers = ["one"]\n', 4, "another name"),
        (f'{ONE}[pools."a b"]\nmembers = ["one"]\n', 4, "a name is 1 to 64 letters"),
        (f'{POOL}[outgoing]\nvia = "eue"\n', 10, "did you mean eu?"),
        (
            f'{POOL}[upstreams.far]\ntype = "socks5"\naddress = "a:1"\nvia = "eu"\n',
            12,
            "a pool is no step of a chain",
        ),
        ("pools = 1\n", 1, "[pools.NAME]"),
        ("[pools]\neu = 1\n", 2, "not a table"),
    ],
)
def test_mistakes(config: str, line: int, told: str, tmp_path: Path) -> None:
    """Each mistake in one line, which shows no secret."""
    (tmp_path / "wrong").write_text("a.example:1\nsocks5://alice:hunter2@b.example:port\n")
    (tmp_path / "loop").write_text("127.0.0.1:1080\n")
    (found,) = problems(config, tmp_path)
    assert found.startswith(f"file:{line}:")
    assert told in found
    assert "hunter2" not in found


def test_example(tmp_path: Path) -> None:
    """The complete file of the page is right."""
    options = parsed((EXAMPLES / "pool.toml").read_text(), tmp_path)
    settings = options.plan.settings
    assert settings.via == "exits"
    assert settings.pools["exits"].otherwise == "refuse"
    assert options.warnings == []


def test_loop_of_pools(tmp_path: Path) -> None:
    """e 46: each loop is told where it stands."""
    config = (
        f'{ONE}[pools.a]\nmembers = ["one"]\notherwise = "b"\n[pools.b]\nmembers = ["one"]\notherwise = "a"\n'
    )
    assert [line.rpartition(": ")[2] for line in problems(config, tmp_path)] == ["a > b > a", "b > a > b"]


def test_warning(tmp_path: Path) -> None:
    """A rule by network before a rule whose names a pool looks up; not where a member has no names."""
    rules = (
        '[[rule]]\nname = "no"\nallow = false\nnetworks = ["private"]\n'
        '[[rule]]\nname = "all"\nallow = true\nvia = "eu"\n'
    )
    (warning,) = parsed(POOL + rules, tmp_path).warnings
    assert 'the rule "all" has the upstream eu look them up' in warning
    assert parsed(POOL + 'otherwise = "direct"\n' + rules, tmp_path).warnings == []


@pytest.mark.parametrize(
    ("otherwise", "more", "names"),
    [
        ("refuse", {}, True),
        ("direct", {}, False),
        ("one", {}, True),
        ("old", {}, False),
        ("us", {}, False),
        ("refuse", {"backup": ["old"]}, False),
        ("refuse", {"backup": ["here"]}, False),
    ],
)
def test_names(otherwise: str, more: Any, names: bool) -> None:
    """Names leave as names where every way that the pool may take looks them up."""
    ways = {"one": upstream("socks5", 1), "old": upstream("socks4", 1), "here": Upstream(type="direct")}
    pools = {
        "eu": UpstreamPool(members=["one"], otherwise=otherwise, **more),
        "us": UpstreamPool(members=["one"], otherwise="direct"),
    }
    assert pool_looks_up("eu", pools, ways) is names


def test_values() -> None:
    with pytest.raises(ConfigError, match="the port is missing"):
        PoolCheck(every=60, connect=Address.of("a", 0))


EXITS = """
[upstreams.office]
type = "http"
address = "office.example:3128"

[upstreams.frankfurt]
type = "socks5"
address = "fra.example:1080"
via = "office"
weight = 2

[upstreams.paris]
type = "socks5"
address = "par.example:1080"

[upstreams.amsterdam]
type = "socks5"
address = "ams.example:1080"

[pools.eu]
members = ["frankfurt", "paris"]
members-file = "exits"
choose = "hash-client"
backup = ["amsterdam"]
otherwise = "direct"

[pools.turns]
members = ["frankfurt", "paris"]
choose = "round-robin"

[[rule]]
name = "all"
allow = true
via = "eu"
ports = [443]

[[rule]]
name = "rest"
allow = true
via = "turns"
"""


def test_explain(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool, the members in their order for this client, the reason, and what comes then."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exits").write_text("".join(f"socks5://a:hunter2@{n}.example:1\n" for n in range(20)))
    (tmp_path / "socks.toml").write_text(EXITS)
    told = explained(capsys, Path("socks.toml"), "connect", "192.0.2.1:443")
    line = next(line for line in told.split("\n") if "pool" in line)
    assert line.startswith("  via the pool eu, by rule all: hash-client: ")
    assert line.endswith(" and 12 more; then amsterdam; then directly")
    assert "hunter2" not in told
    again = explained(capsys, Path("socks.toml"), "connect", "192.0.2.1:443", "--from=192.0.2.77")
    assert line not in again
    told = explained(capsys, Path("socks.toml"), "connect", "www.example.org:80")
    assert (
        "  via the pool turns, by rule rest, which looks the name up: rules by network do not count: "
        "round-robin: office > frankfurt (weight 2), paris; then refused" in told
    )
    data = explained(capsys, Path("socks.toml"), "connect", "192.0.2.1:443", "--json")
    assert '"members": "hash-client: ' in data


def test_explain_commands(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that do not carry the command are passed by; what none carries does not leave directly."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "socks.toml"
    ways = '[upstreams.a]\ntype = "http"\naddress = "a.example:1"\n' + ONE
    pool = '[pools.p]\nmembers = ["a", "one"]\notherwise = "direct"\n[outgoing]\nvia = "p"\n'
    file.write_text(ways + pool)
    for words, told in (
        (("connect", "192.0.2.1:443"), "first: a, one; then directly"),
        (("associate", "192.0.2.1:443"), "first: one; then directly"),
        (("bind", "192.0.2.1:443"), "first: no member\n"),
    ):
        assert (
            f"via the pool p, by the server: {told}" in explained(capsys, Path("socks.toml"), *words) + "\n"
        )
