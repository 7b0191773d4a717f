"""
What the nodes that share a store tell of themselves.

Strategy: each node writes a text about itself again and again. The last of its processes that stops removes
it. A node that writes no more stays known for an hour, so that an operator sees what is missing. The reader
trusts nothing: nodes of other versions write other texts, and nodes of older versions none, so these have
only their column.

* ``told``: a sorted set with the time at which each node has written last.
* ``about``: a hash with the text of each node.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from ..values.errors import ConfigError
from ..values.shared import check_name
from .asking import Job
from .commands import JobStore
from .scripts import ABOUT, TOLD, script

#: Seconds from one text of a node to the next, and after which a node without a new one is gone.
BEAT, GONE = 3.0, 10.0
#: Most nodes that are known, bytes of a text, and columns that are looked at.
MOST, LONGEST, _COLUMNS = 1000, 2048, 8192
#: For how long a node is known that writes no more, and how far the store's clock may go back (ms).
_STAYS, _BACK = 3_600_000, 60_000

_NODES = "nodes"

_TIME = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

#: Keys: told, about. Arguments: node, text. Whatever else is at the keys goes. Answer: what the node has told
#: before, if that was lately, or ''.
ANNOUNCE = script(
    _TIME
    + f"""
for _, probe in ipairs({{{{'ZRANGE', KEYS[1], 0, 0}}, {{'HMGET', KEYS[2], ARGV[1]}}}}) do
  if redis.pcall(unpack(probe)).err then redis.call('DEL', probe[2]) end
end
local before, seen = '', redis.call('ZSCORE', KEYS[1], ARGV[1])
if seen and now - seen < {int(GONE * 1000)} then before = redis.call('HMGET', KEYS[2], ARGV[1])[1] or '' end
if #before > {LONGEST} then before = '' end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for _, names in ipairs({{
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - {_STAYS}, 'LIMIT', 0, 100),
  redis.call('ZRANGEBYSCORE', KEYS[1], now + {_BACK}, '+inf', 'LIMIT', 0, 100),
  redis.call('ZRANGE', KEYS[1], {MOST}, {MOST + 99}, 'REV'),
}}) do
  for _, name in ipairs(names) do
    redis.call('ZREM', KEYS[1], name)
    redis.call('HDEL', KEYS[2], name)
  end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, {_STAYS}) end
return before
"""
)

#: Keys: told, about, nodes. Answer: the time (ms); the nodes, each with when it has written; their texts; the
#: columns that have a lease.
FIND = script(
    _TIME
    + f"""
local told = redis.pcall('ZRANGE', KEYS[1], 0, {MOST - 1}, 'REV', 'WITHSCORES')
if told.err then told = {{}} end
local names, texts = {{}}, {{}}
for at = 1, #told, 2 do names[#names + 1] = told[at] end
if #names > 0 then texts = redis.pcall('HMGET', KEYS[2], unpack(names)) end
if texts.err then texts = {{}} end
for at, text in ipairs(texts) do
  if text and #text > {LONGEST} then texts[at] = false end
end
local columns = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf', 'LIMIT', 0, {_COLUMNS})
return {{string.format('%.0f', now), told, texts, columns}}
"""
)


class KnownNode(NamedTuple):
    """
    What the store has of a node.

    :ivar name: its name.
    :ivar seen: seconds since it has written about itself; None: it never has.
    :ivar processes: how many of its processes have a lease.
    :ivar text: what it has written.
    """

    name: str
    seen: float | None
    processes: int
    text: bytes


def announce(store: JobStore, text: bytes) -> Deferred[bytes | None]:
    """
    Write *text* about this node.

    :returns: fires with what the store had of a node of this name, if that was new; None: it does not answer.
    """
    told: Deferred[bytes | None] = Deferred()
    store.run(Job(ANNOUNCE, [TOLD, ABOUT], [store.settings.node, text], told.callback))
    return told


def find(store: JobStore) -> Deferred[list[KnownNode] | None]:
    """Fires with all nodes that the store knows, by their names; None: the store does not answer."""
    found: Deferred[list[KnownNode] | None] = Deferred()

    def answered(answer: list[Any] | None) -> None:
        found.callback(None if answer is None else _read(answer))

    store.run(Job(FIND, [TOLD, ABOUT, _NODES], [], answered))
    return found


def _read(answer: list[Any]) -> list[KnownNode]:
    now, told, texts, columns = answer
    processes = Counter(_name(column.rpartition(b"/")[0]) for column in columns)
    nodes: dict[str, KnownNode] = {}
    for number, (raw, at) in enumerate(zip(told[::2], told[1::2], strict=True)):
        name, seen = _name(raw), (int(now) - float(at)) / 1000
        text = texts[number] if number < len(texts) else None
        if name and -_BACK / 1000 <= seen <= _STAYS / 1000:
            nodes[name] = KnownNode(name, max(seen, 0.0), processes[name], text or b"")
    for name, count in processes.items():
        if name and name not in nodes and len(nodes) < MOST:
            nodes[name] = KnownNode(name, None, count, b"")
    return [nodes[name] for name in sorted(nodes)]


def _name(raw: bytes) -> str:
    """The name of a node; empty: it cannot be one."""
    try:
        return check_name(raw.decode("ascii"))
    except (UnicodeDecodeError, ConfigError):
        return ""
