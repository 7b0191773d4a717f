"""
The table of metrics: everything that is counted, and what the documentation says of it.

Strategy: a metric is one row here. The columns of the counters, what Prometheus gets, and
``docs/metrics.rst`` are derived from the rows. The labels of a metric have values that the server or its
configuration knows. No client can make another one, except for the first users where the operator wants that.
"""

from __future__ import annotations

from enum import Enum

import attrs

# The upper bounds of buckets, in seconds.
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_CONNECT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)
_SESSION = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

#: What one in a cell is of a second.
MICROSECOND = 1e-6


class MetricKind(Enum):
    """What kind of metric it is, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@attrs.frozen(kw_only=True, eq=False)
class Metric:
    """
    One metric.

    :ivar name: as Prometheus has it.
    :ivar help: what it counts, one line.
    :ivar kind: a counter only grows; a gauge is what it is now; a histogram counts durations by their size.
    :ivar labels: the names of its labels.
    :ivar values: for some labels, the values that there are, in words.
    :ivar buckets: of a histogram, the upper bounds in seconds.
    :ivar scale: what one in a cell is.
    :ivar per_worker: whether each worker has a value of its own, with the label ``worker``; else the values
        of all workers are added up.
    """

    name: str
    help: str
    kind: MetricKind = MetricKind.COUNTER
    labels: tuple[str, ...] = ()
    values: str = ""
    buckets: tuple[float, ...] = ()
    scale: float = 1
    per_worker: bool = False

    @property
    def cells(self) -> int:
        """How many numbers there are of it, for each set of values of its labels."""
        # A histogram has a cell for each bucket, for what is above, and for the sum.
        return len(self.buckets) + 2 if self.kind is MetricKind.HISTOGRAM else 1


def _histogram(name: str, help: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Metric:
    return Metric(
        name=name, help=help, kind=MetricKind.HISTOGRAM, labels=labels, buckets=buckets, scale=MICROSECOND
    )


# What a session does.

CONNECTIONS = Metric(
    name="socksproxy_connections_total",
    help="Clients that have connected.",
    labels=("listener",),
    values="the listener's name in the file, or else its address",
)
SESSIONS = Metric(
    name="socksproxy_sessions",
    help="Live sessions.",
    kind=MetricKind.GAUGE,
    labels=("command", "phase"),
    values="negotiating, resolving, connecting, waiting (for the peer of a BIND), relaying, finishing",
)
ENDED = Metric(
    name="socksproxy_sessions_ended_total",
    help="Sessions that are over, by how they ended.",
    labels=("command", "reason"),
    values="the reasons are the words of the access log's field ``end``; a session without a request has "
    "no command",
)
REPLIES = Metric(
    name="socksproxy_replies_total",
    help="Replies to requests, and to greetings that are refused.",
    labels=("version", "code"),
    values="the version and the number of the reply; other: a code that an upstream has made up",
)
BYTES = Metric(
    name="socksproxy_bytes_total",
    help="Bytes that were relayed. They count while a session goes on, once a second.",
    labels=("command", "direction"),
    values="sent (by clients), received (by clients)",
)
DATAGRAMS = Metric(
    name="socksproxy_datagrams_total",
    help="Datagrams that were relayed.",
    labels=("direction",),
    values="sent (by clients), received (by clients)",
)
DROPPED_DATAGRAMS = Metric(
    name="socksproxy_datagrams_dropped_total",
    help="Datagrams that were not passed on.",
    labels=("reason",),
    values="the words of the access log's field ``dropped``",
)
HANDSHAKE_SECONDS = _histogram(
    "socksproxy_handshake_seconds", "From the connection of the client to its request.", _FAST
)
RESOLUTION_SECONDS = _histogram(
    "socksproxy_resolution_seconds", "From the request to the addresses of its name.", _FAST
)
CONNECT_SECONDS = _histogram(
    "socksproxy_connect_seconds",
    "From the address of the destination to the reply.",
    _CONNECT,
    ("command",),
)
SESSION_SECONDS = _histogram(
    "socksproxy_session_seconds", "From the connection of the client to its end.", _SESSION, ("command",)
)

# Who may do what.

AUTHENTICATIONS = Metric(
    name="socksproxy_authentications_total",
    help="Logins of clients.",
    labels=("method", "result"),
    values="granted, refused",
)
AUTHENTICATION_SECONDS = _histogram(
    "socksproxy_authentication_seconds",
    "How long the check of a client's credentials took.",
    _CONNECT,
    ("method",),
)
LOCKED_ADDRESSES = Metric(
    name="socksproxy_locked_addresses",
    help="Client addresses and names that are refused for now, after too many wrong passwords.",
    kind=MetricKind.GAUGE,
)
RULE_DECISIONS = Metric(
    name="socksproxy_rule_decisions_total",
    help="Sessions by the rule that decided; an association counts for each rule that did.",
    labels=("rule", "decision"),
    values="allow, deny; rules beyond the first 200 count as the rule ``other``",
)
LIMITED = Metric(
    name="socksproxy_limited_total",
    help="Sessions, BINDs, associations and logins that a limit has refused.",
    labels=("scope", "limit"),
    values="the scopes and the names of the limits in the file",
)
LIMIT_ROWS = Metric(
    name="socksproxy_limit_rows",
    help="Rows of the table that workers share, in use.",
    kind=MetricKind.GAUGE,
    labels=("table",),
    values="counts, rates",
)
LIMIT_ROWS_MAX = Metric(
    name="socksproxy_limit_rows_max",
    help="Rows of the table that workers share.",
    kind=MetricKind.GAUGE,
    labels=("table",),
    values="counts, rates",
)

# Users: only those that the operator wants to see.

USER_SESSIONS = Metric(
    name="socksproxy_user_sessions",
    help="Live sessions of users that have logged in; with ``[metrics] users`` only.",
    kind=MetricKind.GAUGE,
    labels=("user",),
    values="the first users; all others, and clients without a name, have an empty one",
)
USER_BYTES = Metric(
    name="socksproxy_user_bytes_total",
    help="Bytes that were relayed for users; with ``[metrics] users`` only.",
    labels=("user", "direction"),
    values="as above; sent, received",
)

# The ways out.

UPSTREAM_SESSIONS = Metric(
    name="socksproxy_upstream_sessions",
    help="Live sessions through an upstream, with the tries that run.",
    kind=MetricKind.GAUGE,
    labels=("upstream",),
    values="the upstream's name in the file",
)
UPSTREAM_TRIES = Metric(
    name="socksproxy_upstream_tries_total",
    help="Tries to connect through an upstream.",
    labels=("upstream",),
    values="the upstream's name in the file",
)
UPSTREAM_FAILURES = Metric(
    name="socksproxy_upstream_failures_total",
    help="Tries through an upstream that have failed.",
    labels=("upstream", "whose"),
    values="own (the upstream itself has failed), destination (what is behind it)",
)
UPSTREAM_CHECKS = Metric(
    name="socksproxy_upstream_checks_total",
    help="Active checks of an upstream that have ended.",
    labels=("upstream",),
    values="the upstream's name in the file",
)

# The process.

BUILD_INFO = Metric(
    name="socksproxy_build_info",
    help="The versions of the program: always 1.",
    kind=MetricKind.GAUGE,
    labels=("version", "python", "twisted"),
)
START_TIME = Metric(
    name="socksproxy_start_time_seconds",
    help="When the server started, in seconds since the epoch.",
    kind=MetricKind.GAUGE,
)
GENERATION = Metric(
    name="socksproxy_generation",
    help="The generation that the ids of sessions begin with.",
    kind=MetricKind.GAUGE,
)
WORKERS = Metric(
    name="socksproxy_workers", help="Workers by their state.", kind=MetricKind.GAUGE, labels=("state",)
)
WORKER_DEATHS = Metric(
    name="socksproxy_worker_deaths_total",
    help="Processes of workers that have ended while the server went on.",
    labels=("how",),
    values="status (by itself), signal, start (it was never ready)",
)
CPU_SECONDS = Metric(
    name="socksproxy_worker_cpu_seconds_total",
    help="Processor time of each worker.",
    scale=MICROSECOND,
    per_worker=True,
)
RESIDENT_BYTES = Metric(
    name="socksproxy_worker_resident_bytes",
    help="Memory of each worker.",
    kind=MetricKind.GAUGE,
    per_worker=True,
)
REACTOR_LAG = Metric(
    name="socksproxy_reactor_lag_seconds",
    help="How much too late the reactor of each worker has called in the last second.",
    kind=MetricKind.GAUGE,
    scale=MICROSECOND,
    per_worker=True,
)
DESCRIPTORS = Metric(
    name="socksproxy_descriptors",
    help="Descriptors of each worker.",
    kind=MetricKind.GAUGE,
    labels=("kind",),
    values="open, limit",
    per_worker=True,
)
ACCEPT_PAUSES = Metric(
    name="socksproxy_accept_pauses_total",
    help="How often descriptors were short, and clients had to wait or idle sessions to end.",
)
ACCESS_LOG_LOST = Metric(
    name="socksproxy_access_log_lost_total", help="Lines of the access log that could not be written."
)
QUOTA_UNWRITTEN = Metric(
    name="socksproxy_quota_unwritten_bytes",
    help="Bytes that count for quotas and are not in the file of quotas yet.",
    kind=MetricKind.GAUGE,
)

# The store that nodes share.

SHARED_UP = Metric(
    name="socksproxy_shared_up",
    help="Processes for which the store that nodes share answers.",
    kind=MetricKind.GAUGE,
)
SHARED_ASKS = Metric(
    name="socksproxy_shared_asks_total",
    help="Questions about sessions that limits of all nodes concern.",
)
SHARED_FALLBACKS = Metric(
    name="socksproxy_shared_fallbacks_total",
    help="Questions that were decided without the store, because it did not answer.",
)
SHARED_FAILURES = Metric(
    name="socksproxy_shared_failures_total",
    help="How many times the store has stopped answering.",
)
SHARED_SENT = Metric(
    name="socksproxy_shared_sent_bytes_total",
    help="Bytes sent to the store.",
)

# The configuration.

CONFIG_INFO = Metric(
    name="socksproxy_config_info",
    help="The configuration in force: always 1.",
    kind=MetricKind.GAUGE,
    labels=("hash",),
    values="the SHA-256 of the file, as ``sha256sum`` and ``/v1/status`` show it; empty without a file",
)
CONFIG_LOADED = Metric(
    name="socksproxy_config_loaded_timestamp_seconds",
    help="When the configuration in force was read, in seconds since the epoch.",
    kind=MetricKind.GAUGE,
)
RELOADS = Metric(
    name="socksproxy_reloads_total",
    help="How often the configuration was read again.",
    labels=("result",),
    values="done, failed",
)
CONFIG_PROBLEM = Metric(
    name="socksproxy_config_problem",
    help="1 while the configuration that was read last is not in force, or its source gives none; else 0.",
    kind=MetricKind.GAUGE,
)
DRAINING = Metric(
    name="socksproxy_draining",
    help="1 while the server lets its sessions finish and accepts no client; else 0.",
    kind=MetricKind.GAUGE,
)

#: All metrics, in the order of the documentation and of what Prometheus gets.
METRICS: tuple[Metric, ...] = (
    BUILD_INFO,
    START_TIME,
    GENERATION,
    CONNECTIONS,
    SESSIONS,
    ENDED,
    REPLIES,
    BYTES,
    DATAGRAMS,
    DROPPED_DATAGRAMS,
    HANDSHAKE_SECONDS,
    RESOLUTION_SECONDS,
    CONNECT_SECONDS,
    SESSION_SECONDS,
    AUTHENTICATIONS,
    AUTHENTICATION_SECONDS,
    LOCKED_ADDRESSES,
    RULE_DECISIONS,
    LIMITED,
    LIMIT_ROWS,
    LIMIT_ROWS_MAX,
    UPSTREAM_SESSIONS,
    UPSTREAM_TRIES,
    UPSTREAM_FAILURES,
    UPSTREAM_CHECKS,
    SHARED_UP,
    SHARED_ASKS,
    SHARED_FALLBACKS,
    SHARED_FAILURES,
    SHARED_SENT,
    USER_SESSIONS,
    USER_BYTES,
    WORKERS,
    WORKER_DEATHS,
    CPU_SECONDS,
    RESIDENT_BYTES,
    REACTOR_LAG,
    DESCRIPTORS,
    ACCEPT_PAUSES,
    ACCESS_LOG_LOST,
    QUOTA_UNWRITTEN,
    CONFIG_INFO,
    CONFIG_LOADED,
    RELOADS,
    CONFIG_PROBLEM,
    DRAINING,
)

#: The metrics by their names.
BY_NAME = {metric.name: metric for metric in METRICS}
