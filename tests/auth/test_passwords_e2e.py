"""``twistd socks --auth htpasswd:FILE`` and ``--auth pam:SERVICE``, with a real client."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.origin import HTTPOrigin
from ..support.processes import Program
from ..support.programs import require, run

pytestmark = pytest.mark.interop

Start = Callable[..., Program]
SECRET = "kr\N{LATIN SMALL LETTER A WITH DIAERESIS}nzchen"

#: The status of curl when a proxy does not let it in.
REFUSED = 97


@pytest.fixture
def origin() -> Iterator[HTTPOrigin]:
    """What is behind the proxy."""
    with HTTPOrigin() as running:
        yield running


class Proxy:
    """A ``twistd socks`` with an ``--auth``, and curl to go through it."""

    def __init__(self, twistd: Start, origin: HTTPOrigin, *options: str) -> None:
        self.program = twistd("socks", "-p", "0", *options)
        self._port = self.program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1]
        self._url = f"http://127.0.0.1:{origin.port}/bytes/100"

    def curl(self, user: str | None, password: str = "") -> int:
        """curl's exit status, without a user or with one and a password."""
        who = [] if user is None else ["--proxy-user", f"{user}:{password}"]
        proxy = ["--noproxy", "", "--proxy", f"socks5h://127.0.0.1:{self._port}"]
        return run([require("curl"), "-s", "-o", os.devnull, *proxy, *who, self._url]).returncode


def passwd(path: Path, *arguments: str, password: str = "") -> None:
    """Change the users in the file at *path*."""
    how = ["--stdin", "--cost", "5"] if password else []
    command = [sys.executable, "-m", "socksproxy", "passwd", *how, str(path), *arguments]
    done = run(command, data=password.encode())
    assert done.returncode == 0, done.stderr


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds, but not as long as a password is remembered."""
    deadline = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_htpasswd(twistd: Start, origin: HTTPOrigin, tmp_path: Path) -> None:
    """Right, wrong and no passwords; a change counts soon, though the old password was right a moment ago."""
    path = tmp_path / "users"
    passwd(path, "bob", password=SECRET)
    passwd(path, "eve", password="other")
    proxy = Proxy(
        twistd, origin, "--auth", f"htpasswd:{path}", "--auth-cache", "3600", "--auth-failures", "0"
    )
    assert proxy.curl("bob", SECRET) == 0
    assert proxy.curl("eve", "other") == 0
    assert proxy.curl("bob", "other") == REFUSED
    assert proxy.curl("joe", "other") == REFUSED
    assert proxy.curl(None) == REFUSED
    passwd(path, "bob", password="new")
    eventually(lambda: proxy.curl("bob", SECRET) == REFUSED)
    assert proxy.curl("bob", "new") == 0
    passwd(path, "--delete", "eve")
    eventually(lambda: proxy.curl("eve", "other") == REFUSED)
    with path.open("ab") as file:
        file.write(b"half")
    proxy.program.wait_for("users: 1")
    for _ in range(12):  # for longer than there is between two looks
        assert proxy.curl("bob", "new") == 0
        time.sleep(0.1)
    proxy.program.wait_for("half-written")
    assert SECRET not in proxy.program.output


@pytest.mark.skipif(os.getuid() != 0, reason="only root may describe PAM services")
def test_pam(twistd: Start, origin: HTTPOrigin) -> None:
    """A PAM service decides."""
    service = Path(f"/etc/pam.d/socksproxy-e2e-{os.getpid()}")
    service.write_text("auth required pam_permit.so\naccount required pam_deny.so\n")
    try:
        proxy = Proxy(twistd, origin, "--auth", f"pam:{service.name}", "--auth-failures", "0")
        assert proxy.curl("bob", "secret") == REFUSED
        service.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
        assert proxy.curl("bob", "secret") == 0
        assert proxy.curl(None) == REFUSED
        assert "secret" not in proxy.program.output
    finally:
        service.unlink()


@pytest.mark.parametrize(
    ("auth", "why"),
    [
        ("htpasswd:nowhere", "htpasswd:nowhere: no such file or directory"),
        ("htpasswd", "no file is named, as in htpasswd:/etc/socks.htpasswd"),
        ("pam:nowhere", "there is no PAM service 'nowhere'"),
    ],
)
def test_refuses_to_start(twistd: Start, auth: str, why: str) -> None:
    """What cannot work ends the start with one line."""
    program = twistd("socks", "-p", "0", "--auth", auth)
    assert program.wait() == 1
    assert why in program.output
    assert "Traceback" not in program.output


def test_help(twistd: Start) -> None:
    """``--help-auth`` lists them, and there is more on each."""
    program = twistd("socks", "--help-auth")
    assert program.wait() == 0
    assert "htpasswd" in program.output
    assert "pam" in program.output
    program = twistd("socks", "--help-auth-type", "htpasswd")
    assert program.wait() == 0
    assert "socksproxy passwd FILE NAME" in program.output
    assert "WARNING" not in program.output
