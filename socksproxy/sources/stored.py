"""A configuration at a key of a Valkey or a Redis."""

from __future__ import annotations

from ..shared.asking import StoreProblem
from ..shared.link import ScriptCall, StoreLink
from ..shared.scripts import script
from ..values.shared import SharedSettings, StoreAddress
from .found import FoundConfig, SourceProblem

#: Seconds in which the store must have answered.
_WITHIN = 10.0
#: Gives the length first: nothing that is too large gets on its way.
_READ = script(
    """
local length = redis.call('STRLEN', KEYS[1])
if length == 0 then return 'the key is missing or empty' end
if length > tonumber(ARGV[1]) then return 'is larger than ' .. ARGV[1] .. ' bytes' end
return {redis.call('GET', KEYS[1])}
"""
)


class StoreSource:
    """
    A key of a store.

    :param address: of the store.
    :param key: its name there.
    :param most: bytes that it may hold.
    :param ca_file: certificates that vouch for the store; None: those of the system.
    """

    def __init__(self, address: StoreAddress, key: str, most: int, ca_file: str | None = None) -> None:
        self._settings = SharedSettings(store=address, ca_file=ca_file)
        self._key = key
        self._most = most

    def look(self, known: FoundConfig | None) -> FoundConfig:
        """See :meth:`~socksproxy.sources.found.Source.look`."""
        try:
            link = StoreLink(self._settings)
            try:
                [answer] = link.run([ScriptCall(_READ, [self._key], [self._most])], _WITHIN)
            finally:
                link.close()
        except StoreProblem as problem:
            raise SourceProblem(str(problem)) from None
        if isinstance(answer, bytes):
            raise SourceProblem(answer.decode("utf-8", "replace"))
        return FoundConfig(answer[0])
