"""
``socksproxy run``: what a program sees of it.

The proxy is on loopback, and so are the origins. The names ``echo.test`` and ``dual.test`` are known to the
proxy alone, so that a program reaches them only through it.
"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.clients import openbsd_nc
from tests.support.origin import Origin
from tests.support.processes import Program
from tests.support.programs import PATIENCE
from tests.support.socksified import command, python
from tests.support.udp import Echo

from .conftest import Proxy

BLOCKING = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:
    sock.sendall(b"hello")
    print(sock.recv(100), sock.getpeername()[1], sock.gettimeout())
"""


@pytest.mark.parametrize("timeout", ["None", "20"])
def test_a_socket_that_blocks_and_one_that_does_not(own_names: Proxy, echoes: Origin, timeout: str) -> None:
    code = BLOCKING.replace("[2]))", f"[2])), {timeout}").replace("(sys.argv[1]", "(sys.argv[1]", 1)
    assert python(own_names.port, code, "echo.test", echoes.port).split()[:2] == [
        "b'hello'",
        str(echoes.port),
    ]
    own_names.check_record(echoes, 5, "echo.test")


ASYNC = """
import asyncio, sys
async def one(number):
    reader, writer = await asyncio.open_connection("echo.test", int(sys.argv[1]))
    writer.write(b"%d" % number)
    assert await reader.read(100) == b"%d" % number
    host, port = writer.get_extra_info("peername")[:2]
    writer.close()
    return host.startswith(("198.18.", "100:0:0:1:")) and port == int(sys.argv[1])
async def main():
    print(all(await asyncio.gather(*map(one, range(20)))))
asyncio.run(main())
"""


def test_asyncio(own_names: Proxy, echoes: Origin) -> None:
    assert python(own_names.port, ASYNC, echoes.port) == "True\n"


THREADS = """
import socket, sys, threading
done = []
def one():
    with socket.create_connection(("echo.test", int(sys.argv[1]))) as sock:
        sock.sendall(b"x")
        done.append(sock.recv(1))
threads = [threading.Thread(target=one) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(done))
"""


def test_threads(own_names: Proxy, echoes: Origin) -> None:
    assert python(own_names.port, THREADS, echoes.port) == "20\n"


ORPHAN = """
import os, subprocess, sys, time
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(0.2)  # its parent has ended by then
        code = "import socket, sys; socket.create_connection(('echo.test', int(sys.argv[1]))); print('there')"
        os.write(writer, subprocess.check_output([sys.executable, "-c", code, sys.argv[1]]))
    os._exit(0)
os.close(writer)
print(os.read(reader, 100).decode(), end="")
"""


def test_a_grandchild_whose_parent_has_ended(own_names: Proxy, echoes: Origin) -> None:
    assert python(own_names.port, ORPHAN, echoes.port) == "there\n"


IPV6 = """
import socket, sys
for only, bound in ((0, False), (1, False), (1, True)):
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if bound:
            sock.bind(("::1", 0))
        sock.set_inheritable(bound)
        sock.settimeout(20)
        sock.connect(socket.getaddrinfo("echo.test", int(sys.argv[1]), socket.AF_INET6)[0][4])
        sock.sendall(b"six")
        assert sock.recv(100) == b"six"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) and sock.get_inheritable() == bound
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) and not sock.getblocking() is None
        assert sock.getsockname()[0] == "::ffff:127.0.0.1" and len(sock.getsockname()) == 4
        print(sock.getpeername()[0])
"""


def test_ipv6_sockets_and_a_proxy_with_ipv4(own_names: Proxy, echoes: Origin) -> None:
    """The last one cannot reach IPv4 at all: the program gets another socket in its place."""
    assert python(own_names.port, IPV6, echoes.port) == "100:0:0:1::1\n" * 3


FAILURES = """
import errno, socket, sys
def attempt(host, port, timeout=20):
    sock.settimeout(timeout)
    try:
        sock.connect((host, port))
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return "connected"
with socket.socket() as sock:
    print(attempt("echo.test", int(sys.argv[1])), attempt("echo.test", int(sys.argv[1]), None))
    print(attempt("nowhere.test", 80), attempt("198.18.9.9", 80), attempt("224.0.0.1", 80))
    print(attempt("echo.test", int(sys.argv[2])))  # the same socket
    print(attempt("echo.test", int(sys.argv[2])))
"""


def test_replies_become_errors_and_the_socket_can_be_used_again(own_names: Proxy, echoes: Origin) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = python(own_names.port, FAILURES, free.getsockname()[1], echoes.port)
    assert said.splitlines() == [
        "ECONNREFUSED ECONNREFUSED",
        "EHOSTUNREACH EHOSTUNREACH ENETUNREACH",
        "connected",
        "EISCONN",
    ]


def test_a_proxy_that_does_not_answer() -> None:
    """A proxy's own failure is not the destination's."""
    code = BLOCKING.replace("with ", "try: \n  sock = ").replace(
        " as sock:", "\nexcept OSError as e: print(e.errno)"
    )
    code = code.partition("    sock.sendall")[0]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        port = silent.getsockname()[1]
        assert python(port, code, "192.0.2.1", 80, options=["--timeout", "0.3"]) == "110\n"


SIGNALS_MEANWHILE = """
import os, signal, socket, sys, time
class Alarm(Exception):
    pass
def alarm(number, frame):
    raise Alarm
here = socket.create_server(("127.0.0.1", 0))
with socket.socket() as sock:
    signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        sock.connect(("192.0.2.1", 80))
    except Alarm:
        print("interrupted")
    sock.connect(here.getsockname())
    print(sock.getpeername() == here.getsockname(), flush=True)
child = os.fork()
if not child:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with socket.socket() as sock:
        sock.connect(("192.0.2.1", 80))
time.sleep(0.5)
os.kill(child, signal.SIGSTOP)  # SIGTSTP stops no process whose group is orphaned, as under setsid
print(os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]))
os.kill(child, signal.SIGCONT)
os.kill(child, signal.SIGINT)
print(os.waitpid(child, 0)[1] != 0)
"""


def test_a_signal_while_the_proxy_does_not_answer() -> None:
    """The program gets it at once. It can be stopped, too."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = python(silent.getsockname()[1], SIGNALS_MEANWHILE, options=["--timeout", "3600"])
    assert said == "interrupted\nTrue\nTrue\nTrue\n"


def test_a_proxy_that_is_not_there() -> None:
    """The program sees an unreachable network, and standard error says why."""
    code = "import socket\nfor _ in (1, 2): print(socket.socket().connect_ex(('192.0.2.1', 80)))"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        line = [*command(free.getsockname()[1]), sys.executable, "-c", code]
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "101\n101\n"
    assert done.stderr == "socksproxy: run: the proxy cannot be reached: connection refused\n"


FAST_OPEN = """
import socket, sys
address = (sys.argv[1], int(sys.argv[2]))
with socket.socket() as sock:
    assert sock.sendto(b"early", socket.MSG_FASTOPEN, address) == 5
    assert sock.recv(100) == b"early"
with socket.socket() as sock:
    sock.setblocking(False)
    assert sock.sendmsg([b"ear", b"ly"], [], socket.MSG_FASTOPEN, address) == 5
    sock.setblocking(True)
    print(sock.recv(100), sock.getpeername()[1])
with socket.socket() as sock:
    sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    sock.connect(address)
    sock.sendall(b"more")
    print(sock.recv(100))
"""


@pytest.mark.parametrize("host", ["echo.test", "127.0.0.1"])
def test_fast_open(own_names: Proxy, echoes: Origin, host: str) -> None:
    said = python(own_names.port, FAST_OPEN, host, echoes.port)
    assert said == f"b'early' {echoes.port}\nb'more'\n"


FAMILIES = """
import ctypes, errno, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
ipv4 = struct.pack("=H", socket.AF_INET) + (9).to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
ipv6 = struct.pack("=H", socket.AF_INET6) + (9).to_bytes(2, "big") + bytes(19) + bytes([1]) + bytes(4)
for family, kind, address in ((10, 1, ipv4 + bytes(12)), (2, 1, ipv6), (2, 2, ipv6), (10, 2, ipv4)):
    with socket.socket(family, kind) as sock:
        failed = libc.connect(sock.fileno(), address, len(address))
        print(errno.errorcode[ctypes.get_errno()] if failed else "connected")
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
    print(libc.sendto(sock.fileno(), b"hello", 5, 0, ipv4, len(ipv4)))
"""


def test_addresses_of_another_family(own_names: Proxy) -> None:
    """As the kernel takes them."""
    without = subprocess.run([sys.executable, "-c", FAMILIES], capture_output=True, text=True, check=True)
    assert without.stdout.split() == ["EAFNOSUPPORT"] * 3 + ["connected", "5"]
    assert python(own_names.port, FAMILIES) == without.stdout


REFUSED = """
import ctypes, errno, socket
for arguments in ((2, 3, 1), (2, 2, 1), (10, 2, 58), (2, 1, 132), (17, 3, 0), (40, 1, 0)):
    try:
        print(socket.socket(*arguments))
    except PermissionError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 8, ctypes.create_string_buffer(200)), errno.errorcode[ctypes.get_errno()])
print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")])
"""


def test_what_leads_around_a_proxy_is_refused(own_names: Proxy) -> None:
    assert python(own_names.port, REFUSED) == "-1 ENOSYS\n['NoNewPrivs:\\t1\\n']\n"


DATAGRAMS = """
import errno, socket, sys
address = (sys.argv[1], int(sys.argv[2]))
def text(problem):
    return errno.errorcode[problem.errno]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # without connect
    sock.settimeout(20)
    address = socket.gethostbyname(address[0]), address[1]
    for data in (b"a", b"b" * 1000, b"c" * 20000):
        sock.sendto(data, address)
        assert sock.recvfrom(65535) == (data, address)
    sock.sendmsg([b"d", b"e"], [], 0, address)
    assert sock.recvmsg(100, 100)[::3] == (b"de", address)
    sock.sendto(b"longer", address)
    assert sock.recvmsg(3)[:3] == (b"lon", [], socket.MSG_TRUNC)
    try:
        sock.sendto(b"x", ("192.0.2.1", 9))
    except OSError as problem:
        print(text(problem))
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:  # with connect
    sock.settimeout(20)
    peer = socket.getaddrinfo(*sys.argv[1:3], socket.AF_INET6, socket.SOCK_DGRAM)[0][4]
    sock.connect(peer)
    sock.send(b"f")
    assert sock.recvfrom(100) == (b"f", peer) and sock.getpeername() == peer
    sock.sendmsg([b"g"])
    assert sock.recv(100) == b"g"
    sock.sendto(b"h", peer)
    assert sock.recv(100) == b"h"
"""


def test_datagrams(own_names: Proxy) -> None:
    with Echo() as echo:
        assert python(own_names.port, DATAGRAMS, "echo.test", echo.address[1]) == "ENETUNREACH\n"


TOO_LONG = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(20)
    sock.connect((sys.argv[1], int(sys.argv[2])))
    sock.send(bytes(65507))
    sock.send(b"short")
    print(sock.recv(100))
"""


def test_a_datagram_that_is_too_long_with_the_proxy_s_header(own_names: Proxy) -> None:
    """It is lost, as the network loses datagrams, and the next one passes."""
    with Echo() as echo:
        assert python(own_names.port, TOO_LONG, "echo.test", echo.address[1]) == "b'short'\n"


WAITING = """
import signal, socket, sys, time
address = ("198.18.0.1", int(sys.argv[1]))
socket.gethostbyname("echo.test")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"x", address)
    assert sock.recvfrom(100) == (b"x", address)  # waits
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes([0] * 8) + (300000).to_bytes(8, "little"))
    try:
        sock.recvfrom(100)
    except BlockingIOError:
        print("timed out")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
    class Alarm(Exception):
        pass
    def alarm(number, frame):
        raise Alarm
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        sock.recvfrom(100)
    except Alarm:
        print("interrupted")
    sock.sendto(b"y", address)
    print(sock.recvmsg(100)[3] == address)
"""


def test_a_call_that_waits_for_a_datagram(own_names: Proxy) -> None:
    with Echo() as echo:
        said = python(own_names.port, WAITING, echo.address[1])
    assert said == "timed out\ninterrupted\nTrue\n"


PLAIN_DATAGRAM = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(20)
    sock.sendto(b"x", ("127.0.0.1", int(sys.argv[1])))
    print(sock.recvfrom(100))
    sock.connect(("127.0.0.1", int(sys.argv[1])))
    sock.send(b"y")
    print(sock.recvfrom(100))
"""


def test_local_datagrams_stay_local(own_names: Proxy) -> None:
    with Echo() as echo:
        said = python(own_names.port, PLAIN_DATAGRAM, echo.address[1])
    assert said == f"(b'x', ('127.0.0.1', {echo.address[1]}))\n(b'y', ('127.0.0.1', {echo.address[1]}))\n"


NAMES = """
import socket
import dns.message, dns.query, dns.rcode
query = dns.message.make_query("a.test", "A")
for ask in (dns.query.udp, dns.query.tcp):
    for server in ("127.0.0.53", "8.8.8.8", "192.0.2.53", "2001:db8::53"):
        answer = ask(query, server, timeout=20)
        assert answer.answer[0][0].address.startswith("198.18."), answer
print(dns.rcode.to_text(dns.query.udp(dns.message.make_query("a.test", "MX"), "8.8.8.8", timeout=20).rcode()))
info = socket.getaddrinfo("b.test", 80)
print(sorted({entry[4][0] for entry in info}), socket.getnameinfo(info[0][4], 0))
print(socket.gethostbyname("localhost"), socket.gethostbyname("x.localhost"))
"""


def test_every_name_server_is_ours(own_names: Proxy) -> None:
    assert python(own_names.port, NAMES).splitlines() == [
        "NOTIMP",
        "['100:0:0:1::2', '198.18.0.2'] ('b.test', 'http')",
        "127.0.0.1 127.0.0.1",
    ]


ENVIRONMENT = "import os; print(sorted(name for name in os.environ if 'proxy' in name.lower()))"


def test_the_program_does_not_see_the_proxy(own_names: Proxy, tmp_path: Path) -> None:
    """Nor the password, which is in the environment of the first process."""
    proxy = f"socks5://user:secret@127.0.0.1:{own_names.port}"
    beginning = command(own_names.port)
    del beginning[beginning.index("--proxy") : beginning.index("--proxy") + 2]
    done = subprocess.run(
        [*beginning, sys.executable, "-c", ENVIRONMENT],
        env={"PATH": os.environ["PATH"], "ALL_PROXY": proxy, "http_proxy": proxy},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 77", 77),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("ulimit -c 0; kill -SEGV $$", -signal.SIGSEGV),
    ],
)
def test_the_exit_status_is_the_program_s(own_names: Proxy, script: str, status: int) -> None:
    done = subprocess.run([*command(own_names.port), "sh", "-c", script], timeout=PATIENCE)
    assert done.returncode == status


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("./missing", 127, "socksproxy: run: ./missing: no such file or directory\n"),
        ("/etc/passwd", 126, "socksproxy: run: /etc/passwd: permission denied\n"),
    ],
)
def test_a_program_that_does_not_start(own_names: Proxy, program: str, status: int, message: str) -> None:
    done = subprocess.run(
        [*command(own_names.port), program], timeout=PATIENCE, stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (status, message)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files(own_names: Proxy, closed: str) -> None:
    """No descriptor of our own takes their place, and the program finds them closed."""
    script = "for n in 0 1 2; do [ -e /proc/self/fd/$n ] || s=$s$n; done; exit $s"
    line = [*command(own_names.port), "bash", "-c", script.replace("exit $s", "exit $((10#$s + 3))")]
    done = subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", *line], timeout=PATIENCE)
    assert done.returncode == {"<&-": 3, ">&-": 4, "2>&-": 5}.get(closed, 15)


def test_pipes_are_the_program_s(own_names: Proxy) -> None:
    """The reader of the output sees its end although another process of the program is left."""
    script = "cat; (exec >/dev/null 2>&1; sleep 30 & echo $! > /dev/null)"
    began = time.monotonic()
    done = subprocess.run(
        [*command(own_names.port), "sh", "-c", script], input=b"in", capture_output=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == (b"in", b"")
    assert time.monotonic() - began < 20


WITHOUT_ROOT = """
import ctypes, os, sys
import twisted.internet.epollreactor, encodings.idna  # this user may not read the interpreter's files
import socksproxy.cli, socksproxy.cli.parser
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a process that has changed its user may not be looked into
sys.exit(socksproxy.cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests show it")
def test_without_root(own_names: Proxy, echoes: Origin) -> None:
    client = [openbsd_nc(), "-N", "echo.test", str(echoes.port)]
    line = [sys.executable, "-c", WITHOUT_ROOT, *command(own_names.port)[3:], *client]
    done = subprocess.run(line, input=b"hello", capture_output=True, timeout=PATIENCE, cwd="/")
    assert (done.stdout, done.returncode) == (b"hello", 0), done.stderr


TRAPS = """
import os, signal, sys, time
got = []
def trap(number, frame):
    got.append(number)
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGWINCH):
    signal.signal(number, trap)
print("ready", flush=True)
while len(got) < 5:
    time.sleep(0.02)
sys.exit(9)
"""


def test_signals_go_to_the_program(own_names: Proxy, tmp_path: Path) -> None:
    program = Program([*command(own_names.port), sys.executable, "-c", TRAPS], tmp_path)
    program.wait_for("ready")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGWINCH):
        program.process.send_signal(number)
        program.wait_for(number.name)
    assert program.wait() == 9
    program.stop()


# A job of a session of its own: the kernel does not stop a process group whose parent is of another session.
JOB_CONTROL = """
import os, signal, sys
os.setsid()
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.execv(sys.argv[1], sys.argv[1:])
_, status = os.waitpid(job, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else status)
os.kill(job, signal.SIGCONT)
print(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
"""


def test_the_program_stops_and_goes_on_with_the_first_process(own_names: Proxy) -> None:
    """As a shell with job control sees it."""
    words = [*command(own_names.port), "sh", "-c", "kill -TSTP $$; exit 5"]
    done = subprocess.run(
        [sys.executable, "-c", JOB_CONTROL, *words], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "stopped\n5\n", done.stderr


def test_the_terminal_is_the_program_s(own_names: Proxy) -> None:
    """Control-C interrupts the program, and the status says so."""
    beginning = command(own_names.port)
    child, terminal = pty.fork()
    if not child:
        os.execv(beginning[0], [*beginning, "sh", "-c", "test -t 0 && echo ready; exec sleep 60"])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    time.sleep(0.3)  # sleep(1) has to take the place of the shell
    os.write(terminal, b"\x03")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGINT


KILLED = """
import errno, os, signal, socket, sys, time
code = open("/proc/self/status").read().partition("PPid:")[2].split()[0]
old = socket.create_connection(("echo.test", int(sys.argv[1])))
other = socket.socket()
os.kill(int(code), signal.SIGKILL)
while os.getppid() == int(code):
    time.sleep(0.01)
old.sendall(b"still")
assert old.recv(100) == b"still"
for address in (("198.18.0.1", 80), ("127.0.0.1", int(sys.argv[1]))):
    try:
        other.connect(address)
    except OSError as problem:
        open(sys.argv[2], "a").write(errno.errorcode[problem.errno])
"""


def test_without_the_supervisor_new_connections_fail(
    own_names: Proxy, echoes: Origin, tmp_path: Path
) -> None:
    """Those that are there go on. The first process ends, because it has nothing left to stand for."""
    said = tmp_path / "said"
    arguments = [sys.executable, "-c", KILLED, str(echoes.port), str(said)]
    done = subprocess.run([*command(own_names.port), *arguments], timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + PATIENCE
    while not said.exists() or said.read_text() != "ENOSYSENOSYS":
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proxy", "socks5://me:secret@127.0.0.1"], "every user of this machine sees the password"),
        (["--proxy", "https://127.0.0.1"], "without TLS"),
        (["--proxy", "socks4://127.0.0.1"], "socks4a or socks5"),
        (["--proxy", "telnet://127.0.0.1"], "telnet"),
        (["--direct", "10.0.0.0/99"], "--direct 10.0.0.0/99"),
        (["--timeout", "0"], "--timeout 0"),
        (["--login-file", "/nowhere"], "--login-file /nowhere: no such file"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    line = [sys.executable, "-m", "socksproxy", "run", "--proxy", "socks5://127.0.0.1", *arguments, "true"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_proxy() -> None:
    bare = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    line = [sys.executable, "-m", "socksproxy", "run", "true"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, env=bare)
    assert (done.returncode, "use --proxy URL" in done.stderr) == (1, True)
