"""Client programs other than curl: each echoes or is answered through the proxy."""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import openbsd_nc
from tests.support.origin import Origin, echo
from tests.support.programs import ECHO, own_address, require, run

from .conftest import Proxy

#: More than any buffer on the way holds.
UPLOAD = os.urandom(3_000_000)


def expected() -> bytes:
    return f"{len(UPLOAD)} {hashlib.sha256(UPLOAD).hexdigest()}\n".encode()


class TestNetcat:
    """The answer comes after our FIN: whoever cuts the session at a half-close fails here."""

    # nc -X 4 looks a name up itself.
    @pytest.mark.parametrize(("version", "host"), [(4, "127.0.0.1"), (5, "127.0.0.1"), (5, "localhost")])
    def test_openbsd(self, proxy: Proxy, answers: Origin, version: int, host: str) -> None:
        way = ["-N", "-X", str(version), "-x", f"127.0.0.1:{proxy.port}"]
        done = run([openbsd_nc(), *way, host, str(answers.port)], data=UPLOAD)
        assert done.stdout == expected(), done.stderr
        proxy.check_record(answers, version, host, sent=len(UPLOAD), received=len(expected()))

    def test_openbsd_ipv6(self, proxy: Proxy, answers6: Origin) -> None:
        way = ["-N", "-X", "5", "-x", f"127.0.0.1:{proxy.port}"]
        done = run([openbsd_nc(), *way, "::1", str(answers6.port)], data=UPLOAD)
        assert done.stdout == expected(), done.stderr
        proxy.check_record(answers6, 5, sent=len(UPLOAD))

    @pytest.mark.parametrize(("version", "host"), [(4, "127.0.0.1"), (5, "127.0.0.1"), (5, "localhost")])
    def test_ncat(self, proxy: Proxy, answers: Origin, version: int, host: str) -> None:
        way = ["--proxy", f"127.0.0.1:{proxy.port}", "--proxy-type", f"socks{version}"]
        by_name = ["--proxy-dns", "remote"] if host == "localhost" else []
        done = run([require("ncat"), *way, *by_name, host, str(answers.port)], data=UPLOAD)
        assert done.stdout == expected(), done.stderr
        proxy.check_record(answers, version, host, sent=len(UPLOAD), received=len(expected()))


@pytest.mark.parametrize(("kind", "host"), [("SOCKS4", "127.0.0.1"), ("SOCKS4A", "localhost")])
def test_socat(proxy: Proxy, answers: Origin, kind: str, host: str) -> None:
    way = f"{kind}:127.0.0.1:{host}:{answers.port},socksport={proxy.port}"
    done = run([require("socat"), "-t", "30", "-", way], data=UPLOAD)
    assert done.stdout == expected(), done.stderr
    proxy.check_record(answers, 4, host, sent=len(UPLOAD), received=len(expected()))


class TestWrappers:
    """Programs that put other programs, here a few lines of Python, behind a proxy."""

    @pytest.mark.parametrize("version", [4, 5])
    @pytest.mark.parametrize("name", [None, "echo.test"])
    def test_proxychains(self, own_names: Proxy, tmp_path: Path, version: int, name: str | None) -> None:
        """Names go by a false address, of which only proxychains knows the name; with SOCKS4 it speaks 4a."""
        config = tmp_path / "proxychains.conf"
        config.write_text(
            f"strict_chain\nproxy_dns\n[ProxyList]\nsocks{version} 127.0.0.1 {own_names.port}\n"
        )
        _through(own_names, [require("proxychains4"), "-q", "-f", str(config)], {}, version, name)

    @pytest.mark.parametrize("version", [4, 5])
    def test_tsocks(self, proxy: Proxy, tmp_path: Path, version: int) -> None:
        """tsocks takes loopback for local, and goes there by itself."""
        config = tmp_path / "tsocks.conf"
        config.write_text(f"server = 127.0.0.1\nserver_port = {proxy.port}\nserver_type = {version}\n")
        environment = {"TSOCKS_CONF_FILE": str(config)}
        _through(proxy, [require("tsocks")], environment, version, address=own_address())

    def test_torsocks(self, proxy: Proxy, tmp_path: Path) -> None:
        """
        torsocks checks that the reply is complete and truthful in every field.

        It lets nobody connect to loopback.
        """
        config = tmp_path / "torsocks.conf"
        config.write_text(
            f"TorAddress 127.0.0.1\nTorPort {proxy.port}\nOnionAddrRange 127.42.42.0/24\n"
            "AllowOutboundLocalhost 0\nAllowInbound 1\n"
        )
        environment = {"TORSOCKS_CONF_FILE": str(config)}
        _through(proxy, [require("torsocks")], environment, 5, address=own_address())

    # By a name it goes with SOCKS5 alone: Dante's client does not speak SOCKS4a, and finds no route.
    @pytest.mark.parametrize(("version", "name"), [(4, None), (5, None), (5, "echo.test")])
    def test_socksify(self, own_names: Proxy, tmp_path: Path, version: int, name: str | None) -> None:
        """Dante's client, the strictest of them."""
        config = tmp_path / "socks.conf"
        config.write_text(
            "resolveprotocol: fake\n"
            "route {\n"
            f"  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {own_names.port}\n"
            f"  proxyprotocol: socks_v{version}\n"
            "  protocol: tcp\n"
            "  method: none\n"
            "  command: connect\n"
            "}\n"
        )
        # Otherwise it goes to the machine's own networks, loopback among them, by itself.
        environment = {"SOCKS_CONF": str(config), "SOCKS_AUTOADD_LANROUTES": "no"}
        _through(own_names, [require("socksify")], environment, version, name)


def _through(
    proxy: Proxy,
    wrapper: list[str],
    environment: dict[str, str],
    version: int,
    name: str | None = None,
    address: str = "127.0.0.1",
) -> None:
    with Origin(echo, address) as origin:
        client = [sys.executable, "-c", ECHO, name or address, str(origin.port)]
        done = run([*wrapper, *client], environment=environment)
        assert done.stdout == b"hello", done.stderr
        proxy.check_record(origin, version, name, sent=5, received=5)


class TestSSH:
    """ssh with a ProxyCommand: a long conversation both ways, in which the server speaks first."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Origin]:
        """sshd for each that comes, its keys in *tmp_path*."""
        sshd, keygen = require("sshd"), require("ssh-keygen")
        for name in ("host", "user"):
            run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)])
        (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        config = tmp_path / "sshd_config"
        config.write_text(
            f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        )
        log = tmp_path / "sshd.log"

        def serve(sock: socket.socket) -> None:
            # sshd listens by itself only on a port that somebody else has chosen.
            sock.setblocking(True)
            command = [sshd, "-i", "-f", str(config), "-E", str(log)]
            subprocess.run(command, stdin=sock.fileno(), stdout=sock.fileno(), timeout=60, check=False)

        with Origin(serve) as origin:
            yield origin

    def test_proxy_command(self, proxy: Proxy, server: Origin, tmp_path: Path) -> None:
        options = {
            "ProxyCommand": f"{openbsd_nc()} -X 5 -x 127.0.0.1:{proxy.port} %h %p",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
        }
        user = pwd.getpwuid(os.getuid()).pw_name
        command = [require("ssh"), "-F", "none", "-i", str(tmp_path / "user"), "-p", str(server.port)]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        done = run([*command, f"{user}@127.0.0.1", "sha256sum"], data=UPLOAD)
        said = done.stderr.decode() + (tmp_path / "sshd.log").read_text()
        if "account is locked" in said:
            pytest.skip("sshd lets nobody into an account that is locked, as this one is")
        assert done.stdout.split()[:1] == [hashlib.sha256(UPLOAD).hexdigest().encode()], said
        proxy.check_record(server, 5)
