"""The configurations of a governed server: what it decides, counts and writes for each session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LOGIN = "bench:sesame"

_TEXT_LOG = '[log]\nlog = "{directory}/access.log"\n'
_JSON_LOG = '[log]\nlog = "{directory}/access.log"\nlog-format = "json"\n'
_PASSWORD = f'[authentication]\nauth = ["memory:{LOGIN}"]\n'

#: Far more than the load makes: no limit is ever reached, and each is looked at.
_OF_CLIENTS, _NEW = "[limits]\nmax-sessions-per-client = 1000000\n", 'new-sessions = "1000000/s"\n'
_COUNTS = f"sessions = 1000000\n{_NEW}"
_BANDWIDTH = 'upload = "100 GB/s"\ndownload = "100 GB/s"\n'


def _limits(each: dict[str, str]) -> str:
    return "".join(f"[limits.{scope}]\n{limits}" for scope, limits in each.items())


def _rules(count: int) -> str:
    return "".join(map(_rule, _hardly_matching(count)))


def _rule(fields: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in ("[[rule]]", *fields))


def _hardly_matching(count: int) -> Iterator[list[str]]:
    """*count* rules of all kinds; only the last one matches what the load asks for."""
    for number in range(count - 1):
        network = f'"10.{number // 256}.{number % 256}.0/24"'
        first = [f'name = "rule-{number}"', f"allow = {'true' if number % 2 else 'false'}"]
        conditions = (
            [f'users = ["user-{number}"]', f"networks = [{network}]"],
            [f'names = ["*.host-{number}.example", "www-{number}.test"]'],
            [f"ports = [{20000 + number}]", f'networks = [{network}, "private"]', 'clients = ["10.0.0.0/8"]'],
            [f"clients = [{network}]", 'commands = ["connect"]'],
            [f'users = ["visitor-{number}"]', 'days = ["mon-fri"]', 'zone = "UTC"'],
        )
        yield first + conditions[number % len(conditions)]
    yield ['name = "last"', "allow = true", 'networks = ["127.0.0.0/8"]']


_ALL_LIMITS = _OF_CLIENTS + _limits(
    {"client": _NEW + _BANDWIDTH, "user": _COUNTS + _BANDWIDTH, "server": _BANDWIDTH}
)

#: By their names in ``--modes``: what the server has to do more, and its configuration.
CONFIGURATIONS = {
    "log": ("an access log", _TEXT_LOG),
    "json": ("an access log in JSON", _JSON_LOG),
    "rules100": ("100 rules", _rules(100)),
    "rules1000": ("1,000 rules", _rules(1000)),
    "counts": (
        "limits on sessions and new sessions, per client and user",
        _OF_CLIENTS + _limits({"client": _NEW, "user": _COUNTS}),
    ),
    "bandwidth": (
        "limits on bandwidth, per client, user and server",
        _limits({"client": _BANDWIDTH, "user": _BANDWIDTH, "server": _BANDWIDTH}),
    ),
    "password": ("a remembered password", _PASSWORD),
    "all": ("log, 100 rules, counts and bandwidth", _TEXT_LOG + _ALL_LIMITS + _rules(100)),
    "allpassword": (
        "log, 100 rules, counts, bandwidth and a password",
        _PASSWORD + _TEXT_LOG + _ALL_LIMITS + _rules(100),
    ),
}


def login_of(name: str) -> str:
    """The user and the password with which sessions of that configuration begin; none: without."""
    return LOGIN if name.endswith("password") else ""
