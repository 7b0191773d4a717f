"""
What the configuration file may say: a frozen class for each table, with a field for each key.

A key has the name of its option; what it means and which values are right is the option's affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from attrs import Attribute, field, fields, frozen

#: Under which a field's metadata is.
_KEY = "socksproxy"


class Key(NamedTuple):
    """
    What is to be known of a key besides its type.

    :ivar example: a value, as the file has it.
    :ivar unit: what a number counts, if it is not plain.
    :ivar secret: whether its value is nobody's business.
    :ivar meaning: what it says, where no option says the same.
    """

    example: str
    unit: str = ""
    secret: bool = False
    meaning: str = ""


def _key(example: str, unit: str = "", *, secret: bool = False, meaning: str = "") -> Any:
    return field(default=None, kw_only=True, metadata={_KEY: Key(example, unit, secret, meaning)})


@frozen
class Listeners:
    """Where clients are accepted, and what they are told of it."""

    listen: tuple[str, ...] | None = _key('["tcp:1080:interface=127.0.0.1", "unix:/run/socks:mode=660"]')
    interface: str | None = _key('"127.0.0.1"')
    port: int | None = _key("1081")
    open: bool | None = _key("true")
    advertise: tuple[str, ...] | None = _key('["203.0.113.5", "10.0.0.5@10.0.0.0/8"]')


@frozen
class Authentication:
    """Who clients are."""

    auth: tuple[str, ...] | None = _key('["htpasswd:/etc/socks.users", "anonymous"]', secret=True)
    auth_timeout: float | None = _key("8", "seconds")
    auth_cache: float | None = _key("300", "seconds")
    auth_failures: int | None = _key("20", "wrong passwords")
    socks4_userid: str | None = _key('"trust"')


@frozen
class Names:
    """How names become addresses."""

    resolver: str | None = _key('"dns:192.0.2.53,192.0.2.54"')
    no_resolve_commands: bool | None = _key("true")


@frozen
class Outgoing:
    """The way out."""

    outgoing: tuple[str, ...] | None = _key('["192.0.2.7", "2001:db8::7"]')


@frozen
class Bind:
    """The command BIND, with which a server connects to the client, as in FTP."""

    bind_ports: int | str | None = _key('"40000-40999"')
    bind_address: tuple[str, ...] | None = _key('["192.0.2.7"]')
    bind_timeout: float | None = _key("60", "seconds")
    bind_any_peer: bool | None = _key("true")
    bind_check_port: bool | None = _key("true")


@frozen
class UDP:
    """The command UDP ASSOCIATE."""

    udp_ports: int | str | None = _key('"41000-41999"')
    udp_port: int | None = _key("1080")
    udp_filter: str | None = _key('"endpoint-independent"')
    udp_relatch: bool | None = _key("true")
    udp_idle_timeout: float | None = _key("60", "seconds")
    udp_grace: float | None = _key("5", "seconds")


@frozen
class Log:
    """The access log."""

    log: str | None = _key('"/var/log/socks/access.log"')
    log_format: str | None = _key('"json"')
    log_probes: bool | None = _key("true")


@frozen
class Workers:
    """Processes, and their end."""

    workers: int | str | None = _key('"auto"', "processes")
    drain: float | None = _key("30", "seconds")


@frozen
class Limits:
    """How much there may be at once."""

    max_sessions: int | None = _key("10000", "sessions")
    max_sessions_per_client: int | None = _key("200", "sessions")
    max_binds_per_client: int | None = _key("8", "BINDs")
    max_associations_per_client: int | None = _key("20", "associations")
    quota_file: str | None = _key(
        '"/var/lib/socks/usage.sqlite"', meaning="File that keeps what of daily and monthly limits is used."
    )


@frozen
class Timeouts:
    """How long clients and destinations may take."""

    handshake_timeout: float | None = _key("5", "seconds")
    connect_timeout: float | None = _key("10", "seconds")
    idle_timeout: float | None = _key("3600", "seconds")
    half_closed_timeout: float | None = _key("120", "seconds")
    keepalive: int | None = _key("30", "seconds")
    keepalive_interval: int | None = _key("10", "seconds")
    tcp_user_timeout: int | None = _key("120", "seconds")


@frozen
class Configuration:
    """The whole file."""

    listeners: Listeners = field(factory=Listeners, kw_only=True)
    authentication: Authentication = field(factory=Authentication, kw_only=True)
    limits: Limits = field(factory=Limits, kw_only=True)
    timeouts: Timeouts = field(factory=Timeouts, kw_only=True)
    names: Names = field(factory=Names, kw_only=True)
    outgoing: Outgoing = field(factory=Outgoing, kw_only=True)
    bind: Bind = field(factory=Bind, kw_only=True)
    udp: UDP = field(factory=UDP, kw_only=True)
    log: Log = field(factory=Log, kw_only=True)
    workers: Workers = field(factory=Workers, kw_only=True)


def spelled(name: str) -> str:
    """A field's *name* as the file has it."""
    return name.replace("_", "-")


def keys_of(table: type) -> dict[str, Attribute[Any]]:
    """The fields of the class *table*, by the names that the file has for them."""
    return {spelled(attribute.name): attribute for attribute in fields(table)}


def about(attribute: Attribute[Any]) -> Key:
    """What is to be known of the key that *attribute* is for."""
    key: Key = attribute.metadata[_KEY]
    return key


def table_classes() -> dict[str, type]:
    """The tables by their names."""
    empty = Configuration()
    return {spelled(table.name): type(getattr(empty, table.name)) for table in fields(Configuration)}


def places() -> dict[str, str]:
    """The table of each key."""
    return {key: table for table, kind in table_classes().items() for key in keys_of(kind)}


def said(configuration: Configuration) -> Iterator[tuple[str, Any]]:
    """Each option of which *configuration* says something, and what."""
    for table in fields(Configuration):
        values = getattr(configuration, table.name)
        for attribute in fields(type(values)):
            value = getattr(values, attribute.name)
            if value is not None and not about(attribute).meaning:
                yield spelled(attribute.name), value
