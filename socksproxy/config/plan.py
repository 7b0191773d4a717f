"""
What the configuration comes to: all that a service needs to know.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import NamedTuple

import attrs
from twisted.internet.interfaces import IStreamServerEndpoint

from ..admin.settings import AdminSettings
from ..logs.access_log import AccessLog
from ..logs.server_log import ServerLog
from ..policy.compiled import RulePolicy
from ..policy.sets import SetFile
from ..settings import ServerSettings
from ..values.metrics import MetricsSettings
from ..values.records import RecordSettings
from ..values.shared import NodeSettings


class Listener(NamedTuple):
    """
    Where clients are accepted.

    :ivar description: the endpoint as the operator wrote it.
    :ivar endpoint: what listens.
    :ivar name: what rules call it, beside its address.
    """

    description: str
    endpoint: IStreamServerEndpoint
    name: str | None = None

    @property
    def balanced(self) -> bool:
        """Whether balancers connect there, with PROXY headers."""
        return self.description.lower().startswith("haproxy:")


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """
    What options and the configuration file mean together.

    :ivar settings: of the server.
    :ivar listeners: where clients are accepted.
    :ivar open: whether listeners may be where other machines reach them.
    :ivar guarded: whether rules or authentication restrict all clients; then listeners may be there anyway.
    :ivar access_log: the access log; None: there is none.
    :ivar server_log: the server's own log; None: it goes where the program sends its log.
    :ivar drain: seconds that sessions may go on when the service stops.
    :ivar workers: processes that serve clients.
    :ivar admin: the admin sockets; None: there are none.
    :ivar metrics: what is counted; None: nothing is.
    :ivar records: where usage records are kept; None: nowhere.
    :ivar node: what is of this node alone.
    :ivar config_interval: seconds between two looks at the source of the configuration; None: as its kind
        has it.
    :ivar config_spread: seconds in which all nodes put a new one in force.
    """

    settings: ServerSettings
    listeners: Sequence[Listener]
    open: bool
    guarded: bool
    access_log: AccessLog | None
    server_log: ServerLog | None = None
    drain: float
    workers: int
    admin: AdminSettings | None = None
    metrics: MetricsSettings | None = None
    records: RecordSettings | None = None
    node: NodeSettings = attrs.field(factory=NodeSettings)
    config_interval: float | None = None
    config_spread: float = 0.0

    @property
    def upstream_names(self) -> Collection[str]:
        """The names of all upstreams."""
        pools = self.settings.pools.values()
        files = [pool.members_file.table for pool in pools if pool.members_file]
        return {*self.settings.upstreams, *chain.from_iterable(files)}

    @property
    def set_files(self) -> Sequence[SetFile]:
        """The files of the sets that rules name, and those of members of pools."""
        policy = self.settings.policy
        files = [*policy.sets.files] if isinstance(policy, RulePolicy) else []
        for pool in self.settings.pools.values():
            if isinstance(pool.members_file, SetFile):
                files.append(pool.members_file)
        return files
