"""
Real programs by ``socksproxy run``, in a network namespace: nothing but the connection to the proxy may
leave it.

The test serves all mirrors itself.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.namespaces import CLIENT, ORIGIN, ORIGIN6, PROXY, SERVER, Capture, Namespaces
from tests.support.programs import require
from tests.support.socksified import require_run

pytestmark = pytest.mark.slow

HELLO = "hello from the origin\n"

# Beside HTTP on port 80: an echo by TCP and UDP on port 7, and on port 5432 a database that refuses all.
SERVICES = """
import http.server, socket, socketserver, sys, threading
class Dual(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
class Web(Dual):
    pass
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Database(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            size = int.from_bytes(self.request.recv(4), "big")
            said = self.request.recv(size - 4)
            if size > 8:
                break
            self.request.sendall(b"N")  # neither TLS nor GSSAPI
        fields = b"SFATAL\\0C28000\\0Mnobody may come in\\0\\0"
        self.request.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments):
        pass
def serve(port, handler):
    threading.Thread(target=Dual(("::", port), handler).serve_forever).start()
serve(80, lambda *arguments: Quiet(*arguments, directory=sys.argv[1]))
serve(7, Echo)
serve(5432, Database)
print("serving", flush=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[2], 7))
    while True:
        data, client = sock.recvfrom(65536)
        sock.sendto(data, client)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the web server has."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "hello").write_text(HELLO)
    return directory


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[Namespaces]:
    require_run()
    require("tcpdump")
    made = Namespaces(tmp_path_factory.mktemp("spaces"))
    try:
        made.start(SERVER, [sys.executable, "-c", SERVICES, str(site), ORIGIN]).wait_for("serving")
        yield made
    finally:
        made.stop()


@pytest.fixture
def captured(spaces: Namespaces) -> Iterator[None]:
    """Nothing passes beside the proxy."""
    with Capture() as capture:
        yield
    assert capture.packets == []


def test_the_capture_sees_what_goes_around_the_proxy(spaces: Namespaces, tmp_path: Path) -> None:
    """Otherwise the other tests say nothing."""
    with Capture() as capture:
        done = spaces.run([require("curl"), "-sS", f"http://{ORIGIN}/hello"], tmp_path)
        spaces.run(["getent", "ahosts", "web.test"], tmp_path)
    assert done.stdout == HELLO
    assert any(f"{ORIGIN}.80" in packet for packet in capture.packets)


def check(done: subprocess.CompletedProcess[str], expected: str) -> None:
    """*done* has succeeded, and said what was expected."""
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout, done.stdout + done.stderr


FETCH = "fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))"
PARALLEL = """
const urls = Array(20).fill(process.argv[1]);
Promise.all(urls.map(u => fetch(u).then(r => r.text()))).then(all => console.log(all.join("")))
"""
URLLIB = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("host", ["web.test", ORIGIN, f"[{ORIGIN6}]", "dual.test"])
@pytest.mark.parametrize(
    "command",
    [["curl", "-sS"], ["wget", "-q", "-O", "-"], ["node", "-e", FETCH], [sys.executable, "-c", URLLIB]],
    ids=["curl", "wget", "node", "urllib"],
)
def test_http(spaces: Namespaces, tmp_path: Path, command: list[str], host: str) -> None:
    program, *arguments = command
    check(spaces.socksified([require(program), *arguments, f"http://{host}/hello"], tmp_path), HELLO)


@pytest.mark.usefixtures("captured")
def test_many_fetches_of_node(spaces: Namespaces, tmp_path: Path) -> None:
    check(spaces.socksified([require("node"), "-e", PARALLEL, "http://web.test/hello"], tmp_path), HELLO * 20)


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("option", ["-4", "-6"])
def test_curl_of_one_family(spaces: Namespaces, tmp_path: Path, option: str) -> None:
    done = spaces.socksified([require("curl"), option, "-sS", "http://web.test/hello"], tmp_path)
    check(done, HELLO)


@pytest.mark.usefixtures("captured")
def test_failures_of_curl(spaces: Namespaces, tmp_path: Path) -> None:
    """A closed port and a name that does not exist: 7 is "failed to connect"."""
    for url in ("http://web.test:81/", "http://nowhere.test/"):
        assert spaces.socksified([require("curl"), "-sS", url], tmp_path).returncode == 7


@pytest.mark.usefixtures("captured")
def test_git(spaces: Namespaces, site: Path, tmp_path: Path) -> None:
    git = require("git")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([git, "init", "-q", str(tmp_path / "source")], check=True)
    commit = [git, *who, "-C", str(tmp_path / "source"), "commit", "-q", "--allow-empty", "-m", "the message"]
    subprocess.run(commit, check=True)
    copy = site / "repository.git"
    subprocess.run([git, "clone", "-q", "--bare", str(tmp_path / "source"), str(copy)], check=True)
    subprocess.run([git, "-C", str(copy), "update-server-info"], check=True)
    done = spaces.socksified([git, "clone", "-q", "http://web.test/repository.git", "copy"], tmp_path)
    assert done.returncode == 0, done.stderr
    log = [git, "-c", "safe.directory=*", "-C", str(tmp_path / "copy"), "log", "--format=%s"]
    assert subprocess.check_output(log, text=True) == "the message\n"


@pytest.mark.usefixtures("captured")
def test_pip(spaces: Namespaces, site: Path, tmp_path: Path) -> None:
    index = site / "simple" / "tiny"
    index.mkdir(parents=True)
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(index / name, "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    (index / "index.html").write_text(f"<!DOCTYPE html><html><body><a href='{name}'>{name}</a></body></html>")
    options = ["--no-cache-dir", "--disable-pip-version-check", "--isolated", "-d", "."]
    source = ["--index-url", "http://web.test/simple/", "--trusted-host", "web.test"]
    line = [sys.executable, "-m", "pip", "download", *options, *source, "tiny"]
    # Settings of this machine's pip do not count.
    done = spaces.socksified(line, tmp_path, environment={"PIP_CONFIG_FILE": os.devnull})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).exists()


@pytest.mark.usefixtures("captured")
def test_apt(spaces: Namespaces, site: Path, tmp_path: Path) -> None:
    """Its method for HTTP is another process, which gives up root."""
    apt = require("apt-get")
    mirror = site / "apt"
    mirror.mkdir()
    package = "Package: tiny\nVersion: 1.0\nArchitecture: all\nFilename: tiny.deb\nSize: 1\n"
    data = gzip.compress(package.encode())
    (mirror / "Packages.gz").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    plain = hashlib.sha256(package.encode()).hexdigest()
    (mirror / "Packages").write_text(package)
    (mirror / "Release").write_text(
        f"Origin: test\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(data)} Packages.gz\n"
        f" {plain} {len(package)} Packages\n"
    )
    (tmp_path / "sources.list").write_text("deb [trusted=yes] http://web.test/apt ./\n")
    for folder in ("lists/partial", "archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    options = {
        "Dir::Etc::SourceList": tmp_path / "sources.list",
        "Dir::Etc::SourceParts": os.devnull,
        "Dir::State::Lists": tmp_path / "lists",
        "Dir::Cache": tmp_path,
        "Dir::Etc::Main": os.devnull,
        "Dir::Etc::Parts": os.devnull,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root" if not _has_user("_apt") else "_apt",
    }
    line = [apt, *(word for key, value in options.items() for word in ("-o", f"{key}={value}")), "update"]
    for place in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # the method reads there without root
        place.chmod(0o755)
    done = spaces.socksified(line, tmp_path, environment={"APT_CONFIG": os.devnull})
    assert done.returncode == 0, done.stderr
    assert "Get:" in done.stdout
    assert "Err" not in done.stdout
    assert list((tmp_path / "lists").glob("*Packages*")), done.stdout + done.stderr


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.mark.usefixtures("captured")
def test_npm(spaces: Namespaces, site: Path, tmp_path: Path) -> None:
    npm = require("npm")
    registry = site / "npm"
    registry.mkdir()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        content = json.dumps({"name": "tiny-left", "version": "1.0.0"}).encode()
        member = tarfile.TarInfo("package/package.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    (registry / "tiny-left-1.0.0.tgz").write_bytes(data.getvalue())
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data.getvalue()).digest()).decode()
    dist = {"tarball": "http://web.test/npm/tiny-left-1.0.0.tgz", "integrity": integrity}
    version = {"name": "tiny-left", "version": "1.0.0", "dist": dist}
    packument = {"name": "tiny-left", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (registry / "tiny-left").write_text(json.dumps(packument))
    options = [
        "--registry",
        "http://web.test/npm/",
        "--cache",
        str(tmp_path / "cache"),
        "--no-audit",
        "--no-fund",
    ]
    environment = {"HOME": str(tmp_path)}
    for place in ("GLOBAL", "USER"):  # settings of this machine's npm do not count
        (tmp_path / place).write_text("")
        environment[f"NPM_CONFIG_{place}CONFIG"] = str(tmp_path / place)
    line = [npm, "install", *options, "--prefix", str(tmp_path), "tiny-left"]
    done = spaces.socksified(line, tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "node_modules" / "tiny-left" / "package.json").exists()


@pytest.mark.usefixtures("captured")
def test_ssh(spaces: Namespaces, tmp_path: Path) -> None:
    sshd, keygen, ssh = require("sshd"), require("ssh-keygen"), require("ssh")
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nPidFile none\nPort 22\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    server = spaces.start(SERVER, [sshd, "-D", "-e", "-f", str(config)])
    server.wait_for("Server listening")
    options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "BatchMode": "yes"}
    command = [ssh, "-F", "none", "-i", str(tmp_path / "user")]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    done = spaces.socksified([*command, "root@web.test", "echo over there"], tmp_path)
    if "account is locked" in server.output or "not allowed because" in server.output:
        pytest.skip("sshd does not let root in")
    check(done, "over there")


@pytest.mark.usefixtures("captured")
def test_psql(spaces: Namespaces, tmp_path: Path) -> None:
    done = spaces.socksified([require("psql"), "-w", "-h", "web.test", "-U", "someone", "base"], tmp_path)
    assert "nobody may come in" in done.stderr


@pytest.mark.usefixtures("captured")
def test_nc(spaces: Namespaces, tmp_path: Path) -> None:
    script = f"printf hello | {require('nc')} -N web.test 7"
    check(spaces.socksified(["sh", "-c", script], tmp_path), "hello")


GO = """
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

func main() {
	var group sync.WaitGroup
	for i := 0; i < 20; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			answer, err := client.Get(os.Args[1])
			if err != nil {
				fmt.Println(err)
				return
			}
			body, _ := io.ReadAll(answer.Body)
			fmt.Print(string(body))
		}()
	}
	group.Wait()
	link, err := net.Dial("udp", os.Args[2])
	if err != nil {
		fmt.Println(err)
		return
	}
	link.Write([]byte("datagram"))
	data := make([]byte, 100)
	size, err := link.Read(data)
	fmt.Println(string(data[:size]), err, link.RemoteAddr())
}
"""


@pytest.fixture(scope="module")
def static_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Go program without a dynamic loader, and with a resolver of its own."""
    go = require("go")
    directory = tmp_path_factory.mktemp("go")
    (directory / "main.go").write_text(GO)
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(directory / "cache"),
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    line = [go, "build", "-o", str(directory / "program"), "main.go"]
    subprocess.run(line, cwd=directory, env=environment, check=True, capture_output=True, timeout=300)
    return str(directory / "program")


def test_a_static_go_program(spaces: Namespaces, static_program: str, tmp_path: Path) -> None:
    """Twenty threads at once, and a datagram, which goes to the proxy's relay."""
    with Capture("udp and host 10.77.0.1 and not port 53 and not port 7") as capture:
        done = spaces.socksified([static_program, "http://web.test/hello", "web.test:7"], tmp_path)
    assert done.stdout.count(HELLO) == 20, done.stdout + done.stderr
    assert "datagram <nil> " in done.stdout, done.stdout
    assert capture.packets == []


JAVA = """
import java.io.*;
import java.net.*;
import java.nio.channels.*;
import java.nio.*;

public class Main {
    public static void main(String[] arguments) throws Exception {
        try (Socket socket = new Socket("web.test", 7)) {
            socket.getOutputStream().write("blocking".getBytes());
            System.out.println(new String(socket.getInputStream().readNBytes(8)));
        }
        SocketChannel channel = SocketChannel.open();
        channel.configureBlocking(false);
        Selector selector = Selector.open();
        channel.register(selector, SelectionKey.OP_CONNECT);
        if (!channel.connect(new InetSocketAddress("web.test", 7))) {
            selector.select(20000);
            channel.finishConnect();
        }
        channel.write(ByteBuffer.wrap("channel".getBytes()));
        channel.keyFor(selector).interestOps(SelectionKey.OP_READ);
        selector.select(20000);
        ByteBuffer data = ByteBuffer.allocate(100);
        channel.read(data);
        System.out.println(new String(data.array(), 0, data.position()));
        URL url = new URL("http://web.test/hello");
        System.out.println(new String(url.openStream().readAllBytes()));
    }
}
"""


@pytest.mark.usefixtures("captured")
def test_java(spaces: Namespaces, tmp_path: Path) -> None:
    java = require("java")
    if shutil.which("javac") is None:
        pytest.skip("javac is not here")
    (tmp_path / "Main.java").write_text(JAVA)
    done = spaces.socksified([java, str(tmp_path / "Main.java")], tmp_path)
    assert done.stdout == f"blocking\nchannel\n{HELLO}\n", done.stderr


TWO_WAYS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(3)
    sock.sendto(b"x", (sys.argv[1], 7))
    print(sock.recvfrom(100))
with socket.create_connection((sys.argv[1], 7)) as sock:
    print(sock.getpeername())
"""


def test_direct_networks_and_datagrams(spaces: Namespaces, tmp_path: Path) -> None:
    """What is said to go around the proxy does."""
    program = [sys.executable, "-c", TWO_WAYS, ORIGIN]
    expected = f"(b'x', ('{ORIGIN}', 7))\n('{ORIGIN}', 7)\n"
    with Capture() as both:
        assert spaces.socksified(program, tmp_path, "--direct", "10.88.0.0/16").stdout == expected
    assert any(".7: UDP" in packet for packet in both.packets)
    assert any(".7: Flags" in packet for packet in both.packets)
    with Capture() as datagrams:
        assert spaces.socksified(program, tmp_path, "--udp", "direct").stdout == expected
    assert any(".7: UDP" in packet for packet in datagrams.packets)
    assert not any(".7: Flags" in packet for packet in datagrams.packets)


NAME_SERVICES = """
import os, socket, subprocess
# In the mount namespace of this program alone.
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
os.mkdir("/run/nscd")
for path in ("/run/nscd/socket", "/run/other"):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    with socket.socket(socket.AF_UNIX) as sock:
        print(sock.connect_ex(path))
"""


def test_services_that_look_names_up_are_not_asked(spaces: Namespaces, tmp_path: Path) -> None:
    """Their queries would go around the proxy."""
    done = spaces.socksified([sys.executable, "-c", NAME_SERVICES], tmp_path)
    assert done.stdout == "2\n0\n", done.stderr


RACE = """
import socket, sys, threading, ctypes, os
# One thread connects, another one changes the address in memory between loopback and a host.
libc = ctypes.CDLL(None)
local = bytes((2, 0, 0, 9)) + socket.inet_aton("127.0.0.1") + bytes(8)
host = bytes((2, 0, 0, 9)) + socket.inet_aton("10.88.0.9") + bytes(8)
memory = ctypes.create_string_buffer(local, 16)
over = False
def change():
    while not over:
        ctypes.memmove(memory, host, 16)
        ctypes.memmove(memory, local, 16)
threading.Thread(target=change).start()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for number in range(300):
        with socket.socket(socket.AF_INET, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setblocking(False)
            libc.connect(sock.fileno(), memory, 16)
            libc.sendto(sock.fileno(), b"x", 1, 0, memory, 16)
over = True
"""


def test_an_address_that_changes_meanwhile(spaces: Namespaces, tmp_path: Path) -> None:
    """The address that was looked at counts, whatever is in memory later."""
    with Capture("udp and host 10.77.0.1") as capture:
        done = spaces.socksified([sys.executable, "-c", RACE], tmp_path, "--timeout", "3")
    assert done.returncode == 0, done.stderr
    assert capture.packets == []


AROUND = """
import errno, socket, struct, sys
ipv4, ipv6, broadcast = sys.argv[1:]
route4 = bytes([1, 131, 7, 4]) + socket.inet_aton(ipv4)
route6 = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, "::1")
route6 += socket.inet_pton(socket.AF_INET6, ipv6)
index = socket.if_nametoindex("outside")
number = struct.pack("=i", index)
def attempt(family, level, option, value):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(level, option, value)
            sock.sendto(b"query", ("::1" if family == socket.AF_INET6 else "127.0.0.1", 53))
        except OSError as problem:
            return errno.errorcode[problem.errno]
def control(family, level, kind, value, host):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            return sock.sendmsg([b"query"], [(level, kind, value)], 0, (host, 9))
        except OSError as problem:
            return errno.errorcode[problem.errno]
print(attempt(socket.AF_INET, 0, socket.IP_OPTIONS, route4))
print(attempt(socket.AF_INET, 0, 50, struct.pack("!i", index)))
print(attempt(socket.AF_INET, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"outside"))
print(attempt(socket.AF_INET6, 41, socket.IPV6_RTHDR, route6))
print(attempt(socket.AF_INET6, 41, 76, struct.pack("!i", index)))
print(control(socket.AF_INET, 0, socket.IP_RETOPTS, route4, "127.0.0.1"))
print(control(socket.AF_INET6, 41, socket.IPV6_RTHDR, route6, "::1"))
print(control(socket.AF_INET, 0, 8, number + bytes(8), "127.0.0.1"))
print(control(socket.AF_INET6, 41, socket.IPV6_PKTINFO, bytes(16) + number, "::1"))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    try:
        sock.sendto(b"query", (broadcast, 137))
    except OSError as problem:
        print(errno.errorcode[problem.errno])
"""


@pytest.mark.usefixtures("captured")
def test_no_option_leads_around_the_proxy(spaces: Namespaces, tmp_path: Path) -> None:
    """A source route or an interface leads even a datagram for 127.0.0.1 to another machine."""
    command = [sys.executable, "-c", AROUND, ORIGIN, ORIGIN6, "10.77.0.255"]
    done = spaces.socksified(command, tmp_path)
    assert done.stdout.split() == ["EPERM"] * 7 + ["5", "5", "ENETUNREACH"], done.stdout + done.stderr


FORWARD_RULES = """
table inet socks {
    chain streams {
        type nat hook output priority -100
        ip daddr 10.88.0.0/16 meta l4proto tcp redirect to :8081
        ip6 daddr fd88::/16 meta l4proto tcp redirect to :8081
    }
}
"""


@pytest.mark.usefixtures("captured")
def test_forward_transparent(spaces: Namespaces, tmp_path: Path) -> None:
    """``socksproxy forward --transparent``: connections of this machine, by both families."""
    nft = require("nft")
    command = [sys.executable, "-m", "socksproxy", "forward", "--proxy", "10.77.0.1:1080", "--transparent"]
    program = spaces.start(CLIENT, [*command, "8081", "[::1]:8081"])
    program.wait_for(r"listening on \[::1\]")
    (tmp_path / "rules").write_text(FORWARD_RULES)
    done = spaces.run([nft, "-f", str(tmp_path / "rules")], tmp_path)
    if done.returncode:
        pytest.skip(f"nftables: {done.stderr}")
    try:
        for host in (ORIGIN, f"[{ORIGIN6}]"):
            check(spaces.run([require("curl"), "-sS", "-m", "10", f"http://{host}/hello"], tmp_path), HELLO)
        with socket.socket():
            done = spaces.run([require("curl"), "-sS", "-m", "10", "http://127.0.0.1:8081/"], tmp_path)
        assert done.returncode  # a loop is refused
    finally:
        spaces.run([nft, "delete", "table", "inet", "socks"], tmp_path)
        program.stop()


# The client's own datagrams are marked, and so come in again by "lo", where TPROXY takes them.
TPROXY_RULES = """
table inet socks {
    chain marks {
        type route hook output priority mangle
        ip daddr 10.88.0.0/16 meta l4proto udp meta mark set 1
    }
    chain datagrams {
        type filter hook prerouting priority mangle
        meta mark 1 meta nfproto ipv4 meta l4proto udp tproxy ip to :8082
    }
}
"""
ROUTES = ("rule add fwmark 1 lookup 100", "route add local default dev lo table 100")
DATAGRAMS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(10)
    for data in (b"one", b"two", bytes(1200)):
        sock.sendto(data, (sys.argv[1], 7))
        print(sock.recvfrom(2000) == (data, (sys.argv[1], 7)))
"""


def test_forward_transparent_datagrams(spaces: Namespaces, tmp_path: Path) -> None:
    """TPROXY: the answers have the address that the client has sent to."""
    nft, ip = require("nft"), require("ip")
    line = [sys.executable, "-m", "socksproxy", "forward", "--proxy", "10.77.0.1:1080", "--transparent"]
    (tmp_path / "rules").write_text(TPROXY_RULES)
    done = spaces.run([nft, "-f", str(tmp_path / "rules")], tmp_path)
    if done.returncode:
        pytest.skip(f"nftables with TPROXY: {done.stderr}")
    program = spaces.start(CLIENT, [*line, "udp:0.0.0.0:8082"])
    try:
        program.wait_for(r"listening on 0\.0\.0\.0:8082")
        for words in ROUTES:
            assert spaces.run([ip, *words.split()], tmp_path).returncode == 0
        with Capture(also=f"udp and host {PROXY}") as capture:
            done = spaces.run([sys.executable, "-c", DATAGRAMS, ORIGIN], tmp_path)
        assert done.stdout == "True\n" * 3, done.stderr + program.output
        assert capture.packets == []
    finally:
        program.stop()
        spaces.run([nft, "delete", "table", "inet", "socks"], tmp_path)
        for words in ROUTES:
            spaces.run([ip, *words.replace("add", "del").split()], tmp_path)
