"""See :mod:`socksproxy.net.metadata_addresses`."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from socksproxy import Client, Rule, RulePolicy
from socksproxy.app import Options
from socksproxy.cli import main
from socksproxy.config import command_line
from socksproxy.config.file import read
from socksproxy.net.metadata_addresses import METADATA_SERVICES
from socksproxy.net.special_addresses import Special, special
from socksproxy.policy import DefaultPolicy, RuleError, Sets
from socksproxy.policy.rules import SPECIAL
from socksproxy.policy.sets import NetworksFile
from socksproxy.wire.words import Address, Command

from ..support.addresses import DISGUISES, disguised

REMOTE, LOCAL = Client("192.0.2.9", 5), Client("127.0.0.1", 5)
#: One of each family, and a network; and addresses beside them.
ADDED = ["10.9.8.7", "fd00:aaaa::5", "fd00:bbbb::/64"]
INSIDE = ["10.9.8.7", "fd00:aaaa::5", "fd00:bbbb::", "fd00:bbbb::ffff"]
OUTSIDE = ["10.9.8.6", "10.9.8.8", "fd00:aaaa::4", "fd00:bbbb:0:1::"]
ALL = Rule(name="all", allow=True)


def policy(options: command_line.SOCKSOptions) -> Any:
    return options.plan.settings.policy


def allowed(policy: RulePolicy | DefaultPolicy, host: str, client: Client = REMOTE) -> bool:
    return policy.permits(client, Command.CONNECT, Address.of(host, 80)) is True


# The list.


@pytest.mark.parametrize("service", METADATA_SERVICES, ids=lambda service: service.address)
def test_services(service: Any) -> None:
    assert special(service.address) is Special.METADATA
    assert not allowed(DefaultPolicy(), service.address)
    assert not allowed(RulePolicy([ALL]), service.address)
    assert allowed(RulePolicy([ALL]), service.address, LOCAL)
    assert service.clouds
    assert service.source.startswith("https://")


def test_no_service_twice() -> None:
    addresses = [ip_address(service.address) for service in METADATA_SERVICES]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("service", [each for each in METADATA_SERVICES if ":" not in each.address])
def test_disguised(service: Any, disguise: str) -> None:
    assert not allowed(DefaultPolicy(), disguised(disguise, service.address))


@pytest.mark.parametrize(
    "host",
    [
        *("fd00:c1::a9fe:a9fd", "fd00:c1::a9fe:a9ff", "fd00:a9fe:a9fe::2", "fd00:a9fe:a9fe::"),
        *("fd00:100::100:199", "fd00:100::100:201", "fd00:ec2::253", "100.96.0.97", "100.80.80.81"),
    ],
)
def test_neighbours(host: str) -> None:
    """Private networks are for rules to forbid."""
    assert allowed(DefaultPolicy(), host)


# What is added.


def test_added() -> None:
    policies = RulePolicy([ALL], Sets({"metadata": ADDED})), RulePolicy((), Sets({"metadata": ADDED}))
    for policy in policies:
        for host in (*INSIDE, "169.254.169.254"):
            assert not allowed(policy, host)
            assert policy.decide(REMOTE, Command.CONNECT, Address.of(host, 80)).rule == SPECIAL
            assert allowed(policy, host, LOCAL)
        for host in OUTSIDE:
            assert allowed(policy, host)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_added_disguised(disguise: str) -> None:
    policy = RulePolicy((), Sets({"metadata": ["10.9.8.7"]}))
    host = disguised(disguise, "10.9.8.7")
    assert not allowed(policy, host)
    assert allowed(RulePolicy(()), host) or "ISATAP" in disguise or "compatible" in disguise


def test_added_in_disguise() -> None:
    """The address counts as it is written, too."""
    policy = RulePolicy((), Sets({"metadata": ["64:ff9b::10.9.8.7"]}))
    assert not allowed(policy, "64:ff9b::10.9.8.7")
    assert allowed(policy, "64:ff9b::10.9.8.8")


@pytest.mark.parametrize("name", ["metadata", "special", "10.9.8.7", "own"])
def test_opened_by_its_name(name: str) -> None:
    rule = Rule(name="opened", allow=True, networks=[name])
    policy = RulePolicy([rule, ALL], Sets({"metadata": ADDED, "own": ["10.9.8.7"]}))
    assert allowed(policy, "10.9.8.7")


@pytest.mark.parametrize("name", ["10.9.8.0/24", "private", "0.0.0.0/0"])
def test_not_opened_by_what_is_around_it(name: str) -> None:
    rule = Rule(name="opened", allow=True, networks=[name])
    policy = RulePolicy([rule, ALL], Sets({"metadata": ADDED}))
    assert not allowed(policy, "10.9.8.7")
    assert allowed(policy, "10.9.8.6")


def test_denied_by_its_name() -> None:
    """A rule against the set holds for clients on this machine, too."""
    rule = Rule(name="no", allow=False, networks=["metadata"])
    policy = RulePolicy([rule, ALL], Sets({"metadata": ADDED}))
    for host in (*INSIDE, "169.254.169.254"):
        assert not allowed(policy, host, LOCAL)


def test_sets_of_others_stay() -> None:
    Sets({"metadata": ADDED})
    assert allowed(RulePolicy([ALL]), "10.9.8.7")


def test_no_other_built_in_set(tmp_path: Path) -> None:
    for name in ("special", "loopback", "private"):
        with pytest.raises(RuleError):
            Sets({name: ["10.9.8.7"]})
    with pytest.raises(RuleError, match="takes networks only, and no file"):
        Sets({"metadata": [NetworksFile(str(tmp_path / "file"))]})


# The configuration.

ADDS = '[sets.metadata]\nnetworks = ["10.9.8.7"]\n'


def test_without_rules() -> None:
    """It adds a policy, and no rules: nothing says who may use the proxy."""
    configured = read(ADDS.encode(), "file")
    assert configured.report([]) == []
    assert configured.policy is not None
    assert configured.policy.rules == ()
    assert not allowed(configured.policy, "10.9.8.7")
    assert allowed(configured.policy, "10.9.8.8")
    assert read(b'[sets.other]\nnetworks = ["10.9.8.7"]\n', "file").policy is None


def test_options(tmp_path: Path) -> None:
    """A reload reads it again; it makes no proxy that is open to others."""
    file = tmp_path / "socks.toml"
    file.write_text(ADDS)
    options = Options(MemoryReactorClock())
    options.parseOptions(["--config", str(file)])
    assert not options.plan.guarded
    assert not allowed(policy(options), "10.9.8.7")
    file.write_text(ADDS.replace("10.9.8.7", "10.9.8.8"))
    again = options.again()
    assert allowed(policy(again), "10.9.8.7")
    assert not allowed(policy(again), "10.9.8.8")


def test_check_and_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "socks.toml"
    file.write_text(f'{ADDS}[[rule]]\nname = "all"\nallow = true\n')
    assert main(["check", str(file)]) == 0
    capsys.readouterr()
    assert main(["explain", str(file), "--from", "192.0.2.9", "connect", "10.9.8.7:80"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("10.9.8.7:80: denied (special: the rule does not name the special address")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('networks = ["10.9.8"]', "must be an address"),
        ('networks-file = "networks"', "[sets.metadata]: takes networks only, and no file"),
    ],
)
def test_mistakes(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "networks").write_text("10.9.8.7\n")
    (line,) = read(f"[sets.metadata]\n{text}\n".encode(), "file", str(tmp_path)).report([])
    assert line.startswith("file:")
    assert expected in line
