"""
What a decision by rules costs, and a look-up in a set of a million entries.

    python benchmarks/rules.py [--rules 1000] [--entries 1000000]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator

from socksproxy.identity import Client
from socksproxy.policy.compiled import RulePolicy
from socksproxy.policy.rules import Rule
from socksproxy.policy.sets import NamesFile, NetworksFile, SetFile
from socksproxy.wire.words import Address, Command

CALLS = 50_000


def some_rules(count: int, chance: random.Random) -> Iterator[Rule]:
    """*count* rules of all kinds, hardly any of which matches what is asked."""
    for number in range(count - 1):
        kind = number % 5
        network = f"{chance.randrange(11, 99)}.{chance.randrange(256)}.{chance.randrange(256)}.0/24"
        port = chance.randrange(1024, 60000)
        name, allow = f"rule-{number}", number % 2 == 0
        if kind == 0:
            yield Rule(name=name, allow=allow, users=[f"user-{number}"], networks=[network])
        elif kind == 1:
            yield Rule(name=name, allow=allow, names=[f"*.host-{number}.example", f"www-{number}.test"])
        elif kind == 2:
            yield Rule(name=name, allow=allow, ports=[(port, port + 10)], networks=[network, "private"])
        elif kind == 3:
            yield Rule(name=name, allow=allow, clients=[network], commands=["connect"])
        else:
            yield Rule(name=name, allow=allow, groups=[f"group-{number}"], days=["mon-fri"], zone="UTC")
    yield Rule(name="last", allow=True)


def cost(call: Callable[[int], object]) -> float:
    """Microseconds of *call*, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for number in range(CALLS):
            call(number)
        best = min(best, time.process_time() - began)
    return best / CALLS * 1e6


def decisions(count: int) -> None:
    """Print what decisions cost."""
    chance = random.Random(7)
    policy = RulePolicy(list(some_rules(count, chance)))
    client = Client("192.0.2.7", 5000, "user-x", None, frozenset({"group-x", "group-y"}), "front", 5)
    few = [Address.of(f"203.0.113.{number}", 443) for number in range(250)]
    many = [
        Address.of(f"203.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}", 443)
        for _ in range(CALLS)
    ]
    named = [Address.of(f"host-{number}.example.com", 443) for number in range(CALLS)]
    for what, destinations in (
        ("addresses that come again", few),
        ("addresses never seen before", many),
        ("names never seen before", named),
    ):
        print(f"{count} rules, {what}: {cost(_asking(policy, client, destinations)):.1f} us")
    spent = cost(_asking(policy, client, many, "www.example.com"))
    print(f"{count} rules, an address of a name: {spent:.1f} us")


def _asking(
    policy: RulePolicy, client: Client, destinations: list[Address], name: str | None = None
) -> Callable[[int], object]:
    return lambda number: policy.decide(
        client, Command.CONNECT, destinations[number % len(destinations)], name
    )


def memory() -> float:
    """MB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def loaded(kind: type[SetFile], write: Callable[[int], str], entries: int) -> SetFile:
    """A set of that *kind* with so many *entries*, once read."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
        file.writelines(write(number) + "\n" for number in range(entries))
    try:
        content = kind(file.name)
        before, began, began_cpu = memory(), time.perf_counter(), time.process_time()
        content.load()
        spent, spent_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    finally:
        os.unlink(file.name)
    print(f"{entries} of {kind.__name__}: read in {spent:.1f} s, {spent_cpu:.1f} s of CPU")
    print(f"  {memory() - before:.0f} MB more at the peak")
    return content


def sets(entries: int) -> None:
    """Print what sets cost."""
    chance = random.Random(7)
    networks = loaded(NetworksFile, lambda _: ".".join(str(chance.randrange(256)) for _ in range(4)), entries)
    assert isinstance(networks, NetworksFile)
    print(f"  a look-up: {cost(lambda _: networks.range_of(chance.getrandbits(32), False)):.2f} us")
    six = loaded(NetworksFile, lambda _: _ipv6(chance), entries)
    assert isinstance(six, NetworksFile)
    start = 0x20010DB8 << 96
    print(f"  a look-up, IPv6: {cost(lambda _: six.range_of(start | chance.getrandbits(96), True)):.2f} us")
    names = loaded(NamesFile, lambda number: f"0.0.0.0 host-{number}.ads-{number % 1000}.example", entries)
    assert isinstance(names, NamesFile)
    print(f"  a look-up: {cost(lambda number: names.holds(f'www.host-{number}.ads.example.com')):.2f} us")


def _ipv6(chance: random.Random) -> str:
    return f"2001:db8:{chance.getrandbits(16):x}:{chance.getrandbits(16):x}::/64"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    decisions(options.rules)
    if options.entries:
        sets(options.entries)


if __name__ == "__main__":
    main()
