"""Users, lock-outs, limits, usage and the configuration, as the admin API tells and changes them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from socksproxy.auth.checkers.htpasswd import new_hash

from ..support.admin import asks
from ..support.origin import Origin, echo
from ..support.processes import Program
from ..support.sessions import ends
from ..support.workers import LISTENING, received, until

_CONFIG = """
[[admin.listener]]
endpoint = "unix:admin.sock"
[authentication]
auth = ["htpasswd:socks.users"]
auth-failures = 2
[limits]
quota-file = "usage.sqlite"
[limits.user]
sessions = 3
daily = "1 GB"
[users.bob]
password = "{hash}"
groups = ["staff"]
[groups.staff]
limits = {{ download = "1 MB/s" }}
[upstreams.office]
type = "socks5"
address = "127.0.0.1:9"
login = {{ user = "me", password-file = "secret" }}
"""


def session(port: int, destination: int, user: bytes = b"bob", password: bytes = b"pw") -> socket.socket:
    """A session of a user through the proxy."""
    client = socket.create_connection(("127.0.0.1", port), 30)
    try:
        login = bytes([1, len(user)]) + user + bytes([len(password)]) + password
        client.sendall(b"\x05\x01\x02" + login)
        if received(client, 4) != b"\x05\x02\x01\x00":
            raise PermissionError("not authenticated")
        client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + destination.to_bytes(2, "big"))
        if received(client, 10)[1]:
            raise PermissionError("refused")
    except BaseException:
        client.close()
        raise
    return client


@pytest.mark.parametrize("workers", ["1", "2"])
def test_all(workers: str, twistd: Callable[..., Program], tmp_path: Path) -> None:
    """What is told of a user is true, and what is set holds until the next reload, in all processes."""
    path = tmp_path / "admin.sock"
    pw = new_hash(b"pw", 4).decode()
    (tmp_path / "socks.users").write_text(f"eve:{pw}\n")
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "socks.toml").write_text(_CONFIG.format(hash=pw))
    program = twistd("socks", "-p", "0", "--config", "socks.toml", "--workers", workers)
    port = int(program.wait_for(LISTENING)[1])

    def got(target: str) -> Any:
        told = asks(path, "GET", target)
        assert told.status == 200, (target, told)
        return told.body

    with Origin(echo) as origin:
        assert got("/v1/users") == {"users": [], "total": 0, "missing": []}
        first, second = (session(port, origin.port) for _ in range(2))
        first.sendall(b"12345")
        assert received(first, 5) == b"12345"
        (row,) = got("/v1/users")["users"]
        assert (row["user"], row["sessions"], row["sent"], row["received"]) == ("bob", 2, 5, 5)
        user = got("/v1/users/bob")
        assert (user["sessions"], user["known"], user["groups"]) == (2, True, ["staff"])
        assert user["limits"]["sessions"] == 3
        assert user["usage"]["day"]["limit"] == 10**9
        assert user["last_seen"] > 0
        assert asks(path, "GET", "/v1/users/bo").status == 404
        (limit,) = got("/v1/limits?scope=user")["limits"]
        assert (limit["holder"], limit["now"], limit["full"]) == ("bob", {"sessions": 2}, False)
        # Until the next reload.
        told = asks(path, "POST", "/v1/users/bob/limits", {"sessions": 2})
        assert (told.status, told.body["until_reload"]) == (200, {"sessions": 2})
        with pytest.raises(PermissionError):
            session(port, origin.port)
        assert [row["holder"] for row in got("/v1/limits?full=true")["limits"]] == ["bob"]
        told = asks(path, "POST", "/v1/users/bob/limits", {"sessions": "unlimited"})
        assert (told.status, told.body["until_reload"]) == (200, {"sessions": "unlimited"})
        for client in [session(port, origin.port) for _ in range(4)]:
            client.close()
        until(lambda: got("/v1/users/bob")["sessions"] == 2)
        for wrong in ({"sessions": 0}, {"colour": 1}, {"download": "fast"}):
            assert asks(path, "POST", "/v1/users/bob/limits", wrong).status == 400
        assert asks(path, "POST", "/v1/reload").status == 200
        assert got("/v1/users/bob")["until_reload"] == {}
        session(port, origin.port).close()
        # A kick ends the sessions of this user alone.
        other = session(port, origin.port, b"eve")
        assert asks(path, "POST", "/v1/users/bob/kick").body["ended"] >= 2
        assert ends(first)
        assert ends(second)
        other.sendall(b"?")
        assert received(other, 1) == b"?"
        for sock in (first, second, other):
            sock.close()
    # Wrong passwords.
    for guess in range(4 * int(workers)):
        with pytest.raises(PermissionError):
            session(port, 9, b"bob", b"%d" % guess)
    (locked,) = got("/v1/lockouts")["lockouts"]
    assert (locked["address"], locked["level"]) == ("127.0.0.1", 1)
    assert 0 < locked["seconds"] <= 60
    assert asks(path, "DELETE", "/v1/lockouts/192.0.2.1").status == 404
    assert asks(path, "DELETE", "/v1/lockouts/127.0.0.1").body == {"unlocked": 1, "missing": []}
    assert got("/v1/lockouts")["lockouts"] == []
    # Secrets are not shown.
    config = asks(path, "GET", "/v1/config")
    for secret in (pw, "hunter2", "socks.users"):
        assert secret.encode() not in config.data
    assert config.body["document"]["limits"]["user"] == {"sessions": 3, "daily": "1 GB"}
    assert config.body["document"]["authentication"]["auth"] == ["htpasswd:..."]
    # Usage: reading changes nothing.
    until(lambda: b"user bob" in asks(path, "GET", "/v1/usage").data)
    until(lambda: asks(path, "GET", "/v1/usage").data == asks(path, "GET", "/v1/usage").data)
    used = [json.loads(line) for line in asks(path, "GET", "/v1/usage").data.splitlines()]
    month = used[0]["period"][:7]
    for place, row in enumerate(used, 1):
        rest = f"/v1/usage?from={row['period']}&beyond={quote(row['holder'])}"
        assert len(asks(path, "GET", rest).data.splitlines()) == len(used) - place
    assert asks(path, "GET", "/v1/usage?beyond=x").status == 400
    assert asks(path, "DELETE", f"/v1/users/bob/usage?period={month}").body["deleted"] > 0
    until(lambda: asks(path, "DELETE", f"/v1/users/bob/usage?period={month}").body["deleted"] == 0)
    assert asks(path, "DELETE", "/v1/users/bob/usage").status == 400
    if (metrics := asks(path, "GET", "/metrics")).status != 501:
        assert b"socksproxy_build_info" in metrics.data
        assert metrics.headers["Content-Type"].startswith("text/plain")
