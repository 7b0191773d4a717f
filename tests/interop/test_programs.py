"""Client programs other than curl: each echoes or is answered through the proxy."""

from __future__ import annotations

import getpass
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.origin import Origin, echo
from tests.support.programs import missing, require, run

from .conftest import Proxy

#: More than any buffer on the way holds.
UPLOAD = os.urandom(3_000_000)


def expected() -> bytes:
    return f"{len(UPLOAD)} {hashlib.sha256(UPLOAD).hexdigest()}\n".encode()


def openbsd_nc() -> str:
    nc = require("nc.openbsd", "nc")
    usage = run([nc, "-h"])
    if b"-X proxy_protocol" not in usage.stdout + usage.stderr:
        missing("OpenBSD's nc")
    return nc


class TestNetcat:
    """The answer comes after our FIN: whoever cuts the session at a half-close fails here."""

    @pytest.mark.parametrize("version", ["4", "5"])
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_openbsd(self, proxy: Proxy, answers: Origin, version: str, host: str) -> None:
        if (version, host) == ("4", "localhost"):
            host = "127.0.0.1"  # nc's SOCKS4 resolves by itself, and may take ::1
        done = run(
            [openbsd_nc(), "-N", "-X", version, "-x", f"127.0.0.1:{proxy.port}", host, str(answers.port)],
            data=UPLOAD,
        )
        assert done.stdout == expected(), done.stderr

    def test_openbsd_ipv6(self, proxy: Proxy, answers6: Origin) -> None:
        done = run(
            [openbsd_nc(), "-N", "-X", "5", "-x", f"127.0.0.1:{proxy.port}", "::1", str(answers6.port)],
            data=UPLOAD,
        )
        assert done.stdout == expected(), done.stderr

    @pytest.mark.parametrize("kind", ["socks4", "socks5"])
    def test_ncat(self, proxy: Proxy, answers: Origin, kind: str) -> None:
        done = run(
            [
                require("ncat"),
                "--proxy",
                f"127.0.0.1:{proxy.port}",
                "--proxy-type",
                kind,
                "127.0.0.1",
                str(answers.port),
            ],
            data=UPLOAD,
        )
        assert done.stdout == expected(), done.stderr

    def test_ncat_by_name(self, proxy: Proxy, answers: Origin) -> None:
        done = run(
            [
                require("ncat"),
                "--proxy",
                f"127.0.0.1:{proxy.port}",
                "--proxy-type",
                "socks5",
                "--proxy-dns",
                "remote",
                "localhost",
                str(answers.port),
            ],
            data=UPLOAD,
        )
        assert done.stdout == expected(), done.stderr


@pytest.mark.parametrize(("kind", "host"), [("SOCKS4", "127.0.0.1"), ("SOCKS4A", "localhost")])
def test_socat(proxy: Proxy, answers: Origin, kind: str, host: str) -> None:
    done = run(
        [require("socat"), "-t", "30", "-", f"{kind}:127.0.0.1:{host}:{answers.port},socksport={proxy.port}"],
        data=UPLOAD,
    )
    assert done.stdout == expected(), done.stderr


_ECHO = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sock.sendall(b"hello")
    sock.shutdown(socket.SHUT_WR)
    print(sock.makefile().read(), end="")
"""


class TestWrappers:
    """Programs that put other programs, here a few lines of Python, behind a proxy."""

    def test_proxychains(self, proxy: Proxy, echoes: Origin, tmp_path: Path) -> None:
        for kind in ("socks4", "socks5"):
            config = tmp_path / "proxychains.conf"
            config.write_text(f"strict_chain\n[ProxyList]\n{kind} 127.0.0.1 {proxy.port}\n")
            done = run(
                [
                    require("proxychains4"),
                    "-q",
                    "-f",
                    str(config),
                    sys.executable,
                    "-c",
                    _ECHO,
                    "127.0.0.1",
                    str(echoes.port),
                ]
            )
            assert done.stdout == b"hello", done.stderr
        assert len(echoes.peers) == 2

    @pytest.mark.parametrize("version", ["4", "5"])
    def test_tsocks(self, proxy: Proxy, tmp_path: Path, version: str) -> None:
        program = require("tsocks")
        config = tmp_path / "tsocks.conf"
        config.write_text(f"server = 127.0.0.1\nserver_port = {proxy.port}\nserver_type = {version}\n")
        self._through(proxy, [program], {"TSOCKS_CONF_FILE": str(config)}, int(version))

    def test_torsocks(self, proxy: Proxy, tmp_path: Path) -> None:
        """torsocks checks that the reply is complete and truthful in every field."""
        config = tmp_path / "torsocks.conf"
        config.write_text(
            f"TorAddress 127.0.0.1\nTorPort {proxy.port}\nOnionAddrRange 127.42.42.0/24\n"
            "AllowOutboundLocalhost 0\nAllowInbound 1\n"
        )
        self._through(proxy, [require("torsocks")], {"TORSOCKS_CONF_FILE": str(config)}, 5)

    @pytest.mark.parametrize("protocol", ["socks_v4", "socks_v5"])
    def test_socksify(self, own_names: Proxy, tmp_path: Path, protocol: str) -> None:
        """Dante's client, the strictest of them; it goes to the machine's own networks directly, but not to names."""
        config = tmp_path / "socks.conf"
        config.write_text(
            "resolveprotocol: fake\nroute {\n  from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = %d\n  proxyprotocol: %s\n"
            "  protocol: tcp\n  method: none\n  command: connect\n}\n" % (own_names.port, protocol)
        )
        wrapper, environment = [require("socksify")], {"SOCKS_CONF": str(config)}
        self._through(own_names, wrapper, environment, int(protocol[-1]), "echo.test", "127.0.0.1")

    def _through(
        self,
        proxy: Proxy,
        wrapper: list[str],
        environment: dict[str, str],
        version: int,
        name: str | None = None,
        address: str | None = None,
    ) -> None:
        """These take loopback for local and go there by themselves: another address of this machine it is."""
        address = address or _own_address()
        name = name or address
        with Origin(echo, address) as origin:
            done = run(
                [*wrapper, sys.executable, "-c", _ECHO, name, str(origin.port)], environment=environment
            )
            assert done.stdout == b"hello", done.stderr
            record = proxy.record_of(f"{name}:{origin.port}")
        assert (record["version"], record["sent"]) == (version, 5)
        assert record["reached"] == f"{address}:{origin.port}"
        host, port = origin.peers[0]
        assert record["outgoing"] == f"{host}:{port}"


def _own_address() -> str:
    """An address of this machine that is not loopback: some clients never send 127/8 to a proxy."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            missing("an address other than loopback")
        address: str = probe.getsockname()[0]
        return address


class TestSSH:
    """ssh with a ProxyCommand: a long conversation both ways, in which the server speaks first."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[tuple[int, Path]]:
        sshd, keygen = require("sshd"), require("ssh-keygen")
        for name in ("host", "user"):
            run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)])
        (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
        os.makedirs("/run/sshd", exist_ok=True) if os.getuid() == 0 else None
        port = _free_port()
        config = tmp_path / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        )
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE)
        assert process.stderr is not None
        try:
            said = b""
            while b"listening on" not in said:
                line = process.stderr.readline()
                assert line, f"sshd does not start: {said.decode()}"
                said += line
            yield port, tmp_path
        finally:
            process.terminate()
            process.communicate()

    def test_proxy_command(self, proxy: Proxy, server: tuple[int, Path]) -> None:
        port, directory = server
        nc = openbsd_nc()
        done = run(
            [
                require("ssh"),
                "-F",
                "none",
                "-i",
                str(directory / "user"),
                "-p",
                str(port),
                "-o",
                f"ProxyCommand={nc} -X 5 -x 127.0.0.1:{proxy.port} %h %p",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "BatchMode=yes",
                f"{getpass.getuser()}@127.0.0.1",
                "sha256sum",
            ],
            data=UPLOAD,
        )
        assert done.stdout.split()[:1] == [hashlib.sha256(UPLOAD).hexdigest().encode()], done.stderr


def _free_port() -> int:
    """sshd cannot be asked which port the kernel chose, so the kernel chooses here."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
