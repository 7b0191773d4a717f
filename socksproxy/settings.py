"""
The settings of a server: one frozen value, which is right once it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec

import attrs
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IHostnameResolver
from twisted.logger import LogEvent

from .limits.quota.usage import UsageFile
from .negotiation import IMethod
from .net.ports import Advertised, advertised_of
from .policy import IPolicy
from .relay.busy_poll import LONGEST_BUSY_POLL
from .routes.own import IRoute
from .shared.store import SharedStore
from .values.auth import AuthSettings
from .values.balancers import Balancers, balancers_of
from .values.bind import BindSettings
from .values.errors import ConfigError
from .values.helpers import HelperSettings
from .values.limits import ServerLimits
from .values.outgoing import FAMILIES, UNSAID, Sources, sources_of
from .values.pools import UpstreamPool, check_pools, need_way, pools_of
from .values.sticky import StickySettings
from .values.timeouts import Timeouts
from .values.udp import UDPSettings
from .values.upstreams import Upstream, check_upstream_name, upstreams_of


def _need_portal(settings: ServerSettings, attribute: object, methods: Sequence[IMethod]) -> None:
    if methods and settings.portal is None:
        raise ConfigError("methods need a portal that judges their credentials")


def _need_usage(settings: ServerSettings, attribute: object, limits: ServerLimits) -> None:
    if settings.usage is None and limits.counts_bytes:
        raise ConfigError("quotas need a UsageFile")


def _check_family(settings: ServerSettings, attribute: object, family: str | None) -> None:
    if family not in (None, *FAMILIES):
        raise ConfigError(f"prefer: neither {' nor '.join(FAMILIES)}", family)


def _need_upstream(settings: ServerSettings, attribute: object, via: str | None) -> None:
    if via is not None:
        need_way(via, {**settings.pools, **settings.routes}, settings.upstreams)


def _need_names(settings: ServerSettings, attribute: object, routes: Mapping[str, Any]) -> None:
    for name, route in routes.items():
        check_upstream_name(name)
        if not IRoute.providedBy(route):
            raise ConfigError(f"the route {name} does not provide IRoute")
        if name in settings.upstreams or name in settings.pools:
            raise ConfigError(f"an upstream or a pool has the name {name}, too")


def _need_members(settings: ServerSettings, attribute: object, pools: Mapping[str, UpstreamPool]) -> None:
    check_pools(pools, settings.upstreams)


def _need_helpers(settings: ServerSettings, attribute: object, helpers: Mapping[str, HelperSettings]) -> None:
    for rule in getattr(settings.policy, "rules", ()):
        if rule.ask is not None and rule.ask not in helpers:
            raise ConfigError(f"there is no helper {rule.ask}, which the rule {rule.name} asks")


def _check_busy_poll(settings: ServerSettings, attribute: object, microseconds: Any) -> None:
    if type(microseconds) is not int or not 0 <= microseconds <= LONGEST_BUSY_POLL:
        raise ConfigError(f"busy_poll: not a whole number from 0 to {LONGEST_BUSY_POLL}", microseconds)


@attrs.frozen(kw_only=True, eq=False)
class ServerSettings:
    """
    Everything that a server can be told.

    :ivar portal: knows who clients are; its avatars are :class:`~socksproxy.identity.ISOCKSUser`, and
        what its checkers can check, clients may show. None: clients are not asked.
    :ivar methods: authentication methods beside ours, best first; they need a *portal*.
    :ivar auth: how clients are asked.
    :ivar policy: who may reach what; None: :class:`~socksproxy.policy.DefaultPolicy`.
    :ivar resolver: looks names up; None: the reactor's own. See
        :func:`~socksproxy.net.resolve.make_resolver`.
    :ivar prefer: the family of a destination's addresses that is tried first: ipv4 or ipv6. None: the
        resolver decides.
    :ivar outgoing: what connections leave from: literal addresses of this machine, prefixes, and words
        such as ``same``. See :class:`~socksproxy.values.outgoing.Sources`.
    :ivar upstreams: the upstream proxies, by their names.
    :ivar pools: the pools of upstreams, by their names; see :class:`~socksproxy.values.UpstreamPool`.
    :ivar routes: ways out of your own by their names, each an :class:`~socksproxy.routes.IRoute`; ``via``
        of the server, of rules and of users names them.
    :ivar via: the upstream or pool through which connections leave where no rule and no user says another;
        None: directly.
    :ivar sticky: names with which users keep one address or one upstream, such as ``bob-session-abc123``.
        None: every name is the name of a user.
    :ivar helpers: the external helpers that rules ask, by their names.
    :ivar timeouts: how long a session may stay in a state.
    :ivar limits: how many sessions, bytes in a second, and so on, there may be.
    :ivar usage: counts the bytes of a day and a month, for quotas; its maker starts it.
        None: there are no quotas. See :class:`~socksproxy.limits.quota.usage.UsageFile`.
    :ivar shared: the store that several nodes share, so that limits hold for all of them; its maker starts
        it. None: limits hold for this server. See :class:`~socksproxy.shared.store.SharedStore`.
    :ivar observer: receives one event for each session that has ended; its
        keys are in :data:`socksproxy.events.FIELDS`.
    :ivar engine: False: relay over Twisted's transports even where the relay engine could be used. It
        cannot change while the server runs.
    :ivar bind: how BIND is served.
    :ivar udp: how UDP ASSOCIATE is served.
    :ivar advertise: addresses that clients are told in place of our own, behind NAT or in a
        container: ``ADDRESS``, or ``ADDRESS@NETWORK`` for clients from there.
    :ivar resolve_commands: whether RESOLVE and RESOLVE_PTR are served.
    :ivar proxy_from: the addresses and networks of balancers whose PROXY headers count, on listeners that
        expect such headers (``haproxy:``); empty: all headers count there.
    :ivar busy_poll: the microseconds for which the engine asks for events without sleep, where the last ones
        came that soon, at most 1,000; 0: it sleeps. Servers of one reactor share the engine, and the setting
        of the last one holds.
    :ivar log_probes: whether *observer* also receives events of clients that connect and send nothing.
    :raises ValueError: for an address or a network that is not a literal one, a word of
        *outgoing* that has no meaning, a second listening address of a family, methods without a portal,
        quotas without a *usage*.
    """

    portal: Portal | None = None
    methods: Sequence[IMethod] = attrs.field(default=(), validator=_need_portal)
    auth: AuthSettings = AuthSettings()
    policy: IPolicy | None = None
    resolver: IHostnameResolver | None = None
    prefer: str | None = attrs.field(default=None, validator=_check_family)
    outgoing: Sources = attrs.field(default=UNSAID, converter=sources_of)
    upstreams: Mapping[str, Upstream] = attrs.field(factory=dict, converter=upstreams_of)
    pools: Mapping[str, UpstreamPool] = attrs.field(factory=dict, converter=pools_of, validator=_need_members)
    routes: Mapping[str, Any] = attrs.field(factory=dict, validator=_need_names)
    via: str | None = attrs.field(default=None, validator=_need_upstream)
    sticky: StickySettings | None = None
    helpers: Mapping[str, HelperSettings] = attrs.field(factory=dict, validator=_need_helpers)
    timeouts: Timeouts = Timeouts()
    limits: ServerLimits = attrs.field(default=ServerLimits(), validator=_need_usage)
    usage: UsageFile | None = None
    shared: SharedStore | None = None
    observer: Callable[[LogEvent], object] | None = None
    engine: bool = True
    bind: BindSettings = BindSettings()
    udp: UDPSettings = UDPSettings()
    advertise: Advertised = attrs.field(default=Advertised(), converter=advertised_of)
    resolve_commands: bool = True
    proxy_from: Balancers = attrs.field(default=Balancers(), converter=balancers_of)
    busy_poll: int = attrs.field(default=50, validator=_check_busy_poll)
    log_probes: bool = False


_Fields = ParamSpec("_Fields")
_Function = Callable[..., None]


def _typed_by(
    settings: Callable[_Fields, object],
) -> tuple[
    Callable[[_Function], Callable[Concatenate[Any, Any, _Fields], None]],
    Callable[[_Function], Callable[Concatenate[Any, _Fields], None]],
]:
    return lambda method: method, lambda method: method


#: Have a type checker know the fields of :class:`ServerSettings` as the keywords of a method: of one with a
#: parameter before them, and of one without.
with_fields, with_changes = _typed_by(ServerSettings)
