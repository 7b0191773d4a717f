"""
Limits: the tables ``[limits.server]`` and so on, and ``limits`` of users, groups and rules.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ..errors import describe
from ..values.amounts import byte_rate, event_rate, size, whole
from ..values.errors import ConfigError, Path
from ..values.limits import DIRECTIONS, UNLIMITED, UNLIMITED_RATE, Fallback, Limits, Rate, ServerLimits
from .readers import Key, Reader, plain, read_table
from .words import listed

#: What a single session cannot have many of.
_NOT_OF_SESSIONS = (
    *("sessions", "binds", "associations", "devices", "new-sessions", "daily", "monthly", "counts", "shared"),
)
#: What an option says of client addresses.
_OF_CLIENTS = ("sessions", "binds", "associations")
#: What is counted from one day, and one month, to the next.
_QUOTAS = ("daily", "monthly", "counts")
#: Words about the other limits.
_WORDS = ("counts", "shared")
_RATES = ("new-sessions", "upload", "download")

#: What is to be known of each key; the rest is said by the class.
LIMIT_KEYS = {
    "sessions": Key("100"),
    "binds": Key("8"),
    "associations": Key("20"),
    "devices": Key("3"),
    "new-sessions": Key('{ rate = "10/s", burst = 50 }', "a second"),
    "upload": Key('"1 MB/s"', "bytes a second"),
    "download": Key('{ rate = "10 MB/s", burst = "40 MB" }', "bytes a second"),
    "daily": Key('"5 GB"', "bytes"),
    "monthly": Key('"100 GB"', "bytes"),
    "counts": Key('"download"'),
    "shared": Key('"strict"'),
}
#: The keys that only networks of clients have.
PREFIX_KEYS = {"ipv4-prefix": Key("24", "bits"), "ipv6-prefix": Key("64", "bits")}


def limits_reader(quota_file: bool, lifts: bool = False, scope: str = "user") -> Reader:
    """
    Reads the limits of a user, a group or a rule.

    :param quota_file: whether there is one, without which there are no quotas.
    :param lifts: whether "unlimited" lifts a limit of a group or of all users.
    :param scope: whose limits they are: each user's, or those of a rule.
    """
    readers = _readers(quota_file, scope)
    if lifts:
        readers = {
            key: reader if key in _WORDS else _or_unlimited(key, reader) for key, reader in readers.items()
        }

    def read(value: Any, path: Path, errors: list[ConfigError]) -> Limits:
        return Limits(**_fields(read_table(value, path, readers, errors)))

    return read


def server_limits(tables: dict[str, Any], quota_file: bool, errors: list[ConfigError]) -> ServerLimits:
    """
    What the tables within ``[limits]`` say.

    :param tables: by their names, of which there are no others than SCOPES of the options.
    :param quota_file: whether there is one, without which there are no quotas.
    :param errors: what is wrong is added to them.
    """
    said: dict[str, Any] = {}
    for scope, table in tables.items():
        path: Path = ("limits", scope)
        known = len(errors)
        try:
            found = read_table(table, path, _readers(quota_file, scope), errors)
        except ConfigError:
            errors.append(
                ConfigError(f"not a table: it begins with [limits.{scope}]", path=path, shown=False)
            )
        if len(errors) > known:
            continue
        said |= _fields({key: found.pop(key) for key in _PREFIXES if key in found})
        said[scope] = Limits(**_fields(found))
    return ServerLimits(**said)


def _readers(quota_file: bool, scope: str) -> dict[str, Reader]:
    readers = dict(_READERS)
    if scope != "user":
        reason = "of users only: [limits.user], limits of users and groups, user-limits of rules"
        readers |= _refused(["devices"], reason)
    if not quota_file:
        readers |= _refused(_QUOTAS, "needs quota-file in [limits], where what has been used is kept")
    if scope == "session":
        reason = "not of a single session, which has upload and download only"
        readers |= _refused(_NOT_OF_SESSIONS, reason)
    if scope == "client":
        readers |= _refused(_OF_CLIENTS, "max-{key}-per-client in [limits] says it")
    return readers | _PREFIXES if scope == "network" else readers


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in found.items()}


def check_quota_file(path: str) -> None:
    """
    See whether there could be a file at *path* that keeps what is used.

    :raises ConfigError: when there could not.
    """
    file = os.path.abspath(path)
    folder = os.path.dirname(file)
    try:
        os.stat(folder)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(file).st_mode):
                raise ConfigError("not a file")
        # SQLite has a journal beside the file.
        for there, wanted in ((folder, os.W_OK | os.X_OK), (file, os.R_OK | os.W_OK)):
            if os.path.exists(there) and not os.access(there, wanted):
                raise ConfigError("permission denied")
    except OSError as problem:
        raise ConfigError(describe(problem)) from None
    except ConfigError:
        raise
    except ValueError:
        raise ConfigError("not a path") from None


def _rate(rate: Callable[[Any], float], burst: Callable[[Any], float]) -> Reader:
    """Reads a rate, or a table with ``rate`` and ``burst``."""
    readers = {"rate": plain(rate), "burst": plain(burst)}

    def read(value: Any, path: Path, errors: list[ConfigError]) -> Rate:
        if not isinstance(value, dict):
            return Rate(rate(value))
        found = read_table(value, path, readers, errors)
        if "rate" not in value:
            errors.append(ConfigError("rate is missing", path=path, shown=False))
        return Rate(found.get("rate", 0.0), found.get("burst"))

    return read


def _or_unlimited(key: str, reader: Reader) -> Reader:
    lifted = UNLIMITED_RATE if key in _RATES else UNLIMITED

    def read(value: Any, path: Path, errors: list[ConfigError]) -> Any:
        return lifted if value == "unlimited" else reader(value, path, errors)

    return read


def _prefix(most: int) -> Reader:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ConfigError(f"not a whole number from 0 to {most}")
        return value

    return plain(read)


def _fallback(value: Any) -> Fallback:
    words = [each.value for each in Fallback]
    if value not in words:
        raise ConfigError(f"there are {listed(words)}")
    return Fallback(value)


def _direction(value: Any) -> str:
    if value not in DIRECTIONS:
        raise ConfigError("neither upload nor download")
    return str(value)


def _refused(keys: Iterable[str], reason: str) -> dict[str, Reader]:
    """Readers of *keys* that cannot be here; ``{key}`` in the *reason* is the key."""

    def read(value: Any, path: Path, errors: list[ConfigError]) -> None:
        raise ConfigError(reason.format(key=path[-1]))

    return dict.fromkeys(keys, read)


_READERS: dict[str, Reader] = {
    "sessions": plain(whole),
    "binds": plain(whole),
    "associations": plain(whole),
    "devices": plain(whole),
    "new-sessions": _rate(event_rate, whole),
    "upload": _rate(byte_rate, size),
    "download": _rate(byte_rate, size),
    "daily": plain(size),
    "monthly": plain(size),
    "counts": plain(_direction),
    "shared": plain(_fallback),
}
_PREFIXES = {"ipv4-prefix": _prefix(32), "ipv6-prefix": _prefix(128)}
