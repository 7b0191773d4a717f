"""
The fields of one session that lives.
"""

from __future__ import annotations

from typing import Any

from ..logs.printable import line_of_record, shown
from ..session.record import method_of, rule_of, shown_command
from .selection import Seen


def row_of(seen: Seen, wall: float, worker: int) -> dict[str, Any]:
    """
    What an answer says of a session; the documentation of the API explains the keys.

    :param wall: seconds since the epoch.
    :param worker: the number of this process.
    """
    session = seen.session
    service, request, client = session.service, session.request_if_any, session.client
    row: dict[str, Any] = {
        "id": session.id,
        "worker": worker,
        "client": str(client),
        "user": None if client.user is None else line_of_record(client.user),
        "method": method_of(session),
        "phase": session.phase.value,
        "command": None if request is None else shown_command(request.command),
        "version": None if request is None else int(request.version),
        "destination": None if request is None else shown(request.destination),
        "rule": None,
        "reached": None,
        "outgoing": None,
        "via": None,
        "began": round(wall - seen.age, 3),
        "age": round(seen.age, 3),
        "sent": 0,
        "received": 0,
        "datagrams_sent": None,
        "datagrams_received": None,
        "rate": round(seen.rate, 1),
    }
    if service is not None:
        counts, reached, outgoing, trail = service.counts(), service.reached, service.outgoing, service.trail
        row.update(
            rule=rule_of(session, reached, counts.datagrams_sent is not None)[0],
            reached=None if reached is None else shown(reached),
            outgoing=None if outgoing is None else str(outgoing),
            via=None if trail is None else trail.via,
            sent=counts.sent,
            received=counts.received,
            datagrams_sent=counts.datagrams_sent,
            datagrams_received=counts.datagrams_received,
        )
    return row
