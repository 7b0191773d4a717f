"""The status page in Chromium: see :mod:`socksproxy.admin.page`."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from ..support.admin import asks
from ..support.origin import Origin, echo
from ..support.processes import TWISTD, Program

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "socksproxy" / "admin" / "page" / "static"
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or shutil.which("node") is None, reason="needs chromium and node"),
    pytest.mark.skipif(
        not all((HERE / "node_modules" / name).is_dir() for name in ("playwright-core", "axe-core")),
        reason="needs npm's playwright-core and axe-core",
    ),
]

#: Names that a browser must show and not run.
IMAGE = "<img src=x onerror=alert(1)>"
HEBREW = "\u05d0\u05d1 <b>\u202egnp.exe"
LONG = "n" * 250 + "'\"&lt"
USERS = ("alice", "bob", IMAGE, HEBREW, LONG)

#: Bytes that are sent before their echo is read.
_ECHOED = 50_000

_CONFIG = """
[workers]
drain = 0
[listeners]
listen = ["tcp:0:interface=127.0.0.1"]
[authentication]
auth = ["htpasswd:users"]
[metrics]
[limits.user]
sessions = 50
[[admin.listener]]
endpoint = "unix:admin.sock"
[[admin.listener]]
endpoint = "tcp:{port}:interface=127.0.0.1"
[[rule]]
name = "all"
allow = true
networks = ["127.0.0.0/8"]
"""


class Browser:
    """Chromium, driven by a program of node."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", "browser.mjs", str(CHROMIUM)],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, **given: Any) -> Any:
        """What *code* of JavaScript returns: ``browser.mjs`` has what it can use."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"code": code, "given": given}) + "\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline())
        assert "error" not in told, told["error"]
        return told["result"]

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)


class Server:
    """A real server with an admin listener on TCP, and clients of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.admin: int = sock.getsockname()[1]
        secret = bcrypt.hashpw(b"pw", bcrypt.gensalt(4)).decode()
        (directory / "users").write_text("".join(f"{name}:{secret}\n" for name in USERS), "utf-8")
        (directory / "socks.toml").write_text(_CONFIG.format(port=self.admin))
        self.url = f"http://127.0.0.1:{self.admin}/"
        self.start()

    def start(self) -> None:
        """Start it."""
        command = [*TWISTD, "-n", "--pidfile=", "socks", "--config", "socks.toml"]
        self.program = Program(command, self.directory)
        self.port = int(self.program.wait_for(r"listening on tcp:127\.0\.0\.1:(\d+)")[1])

    def stop(self) -> None:
        """Stop it; whatever it said must not be a traceback."""
        self.program.stop()
        assert "Traceback" not in self.program.output, self.program.output

    def connect(self, user: str, port: int, data: bytes = b"x") -> socket.socket:
        """A session of *user* with an echo at *port*, which has moved *data*."""
        sock = socket.create_connection(("127.0.0.1", self.port), 30)
        name = user.encode()
        sock.sendall(b"\5\1\2\1" + bytes([len(name)]) + name + b"\2pw")
        sock.sendall(b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big"))
        self._read(sock, 2 + 2 + 10)
        for start in range(0, len(data), _ECHOED):
            some = data[start : start + _ECHOED]
            sock.sendall(some)
            self._read(sock, len(some))
        return sock

    def _read(self, sock: socket.socket, count: int) -> None:
        while count:
            received = len(sock.recv(min(count, 1 << 16)))
            assert received
            count -= received


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    """One browser for all tests, and ``kept.page`` in it, which shows the server."""
    browser = Browser()
    browser.run("kept.page = await open(given.url);", url=server.url)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("page"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin(echo) as origin:
        yield origin


@pytest.fixture(autouse=True)
def fine(browser: Browser) -> Iterator[None]:
    """No page complains: neither of a fault, nor of what its policy forbids."""
    yield
    assert browser.run("return complaints.splice(0)") == []


def test_draws_and_updates(browser: Browser, server: Server, origin: Origin) -> None:
    """The page shows what sessions do, and what they have done, without being loaded again."""
    with server.connect("alice", origin.port, bytes(300_000)):
        browser.run(
            """
            const { page } = kept;
            await page.waitForFunction(() => document.querySelector("#now-sessions").textContent === "1");
            const row = page.locator("#list tbody tr", { hasText: "alice" });
            await row.getByText("300 kB").first().waitFor();
            await page.locator("#link", { hasText: "live" }).waitFor();
            await page.locator("#state", { hasText: "running" }).waitFor();
            await page.locator("#top-user", { hasText: "alice" }).waitFor();
            await page.locator("#top-rule", { hasText: "all" }).waitFor();
            await page.locator("#limits", { hasText: "1 / 50" }).waitFor();
            await page.locator("#listeners", { hasText: given.address }).waitFor();
            await page.locator("#peak-sent", { hasText: "kB/s" }).waitFor();
            """,
            address=f"127.0.0.1:{server.port}",
        )
        # Something is drawn where the throughput is.
        assert browser.run(
            """
            return kept.page.evaluate(() => {
              const canvas = document.querySelector("#throughput canvas");
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              let count = 0;  // of dots that are coloured
              for (let at = 0; at < data.length; at += 4) count += Math.abs(data[at] - data[at + 2]) > 80;
              return count;
            });
            """
        )
    browser.run(
        """
        await kept.page.locator("#list tbody tr.ended", { hasText: "ended: client" }).waitFor();
        await kept.page.waitForFunction(() => document.querySelector("#now-sessions").textContent === "0");
        """
    )


def test_hostile_names(browser: Browser, server: Server, origin: Origin) -> None:
    """Names are texts, whatever they are; a mark that turns the writing round is not passed on."""
    sockets = [server.connect(name, origin.port) for name in (IMAGE, HEBREW, LONG)]
    names = browser.run(
        """
        const { page } = kept;
        await page.locator("#list tbody tr:not(.ended)").nth(2).waitFor();
        await page.waitForFunction(() => document.querySelectorAll("#top-user tbody tr").length >= 3);
        const images = await page.locator("main img").count();
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        const names = await page.locator("#list tbody tr:not(.ended) td:first-child").allTextContents();
        return [images, wide, ...names.sort()];
        """
    )
    assert names == [0, False, IMAGE, LONG, "\u05d0\u05d1 <b>\\u202egnp.exe"]
    for sock in sockets:
        sock.close()


def test_sort_filter_and_pause(browser: Browser, server: Server, origin: Origin) -> None:
    """The table is sorted and filtered by the keyboard alone, and keeps still when it is told to."""
    few = server.connect("alice", origin.port, bytes(1000))
    many = server.connect("bob", origin.port, bytes(90_000))
    names, paused, filtered = browser.run(
        """
        const { page } = kept;
        const names = () => page.locator("#list tbody tr:not(.ended) td:first-child").allTextContents();
        for (const name of ["alice", "bob"])
          await page.locator("#list tbody tr:not(.ended)", { hasText: name }).waitFor();
        await page.waitForFunction(() => document.querySelector("#now-sessions").textContent === "2");
        await page.locator("th button", { hasText: "Sent" }).focus();
        await page.keyboard.press("Enter");
        const down = await names();
        await page.keyboard.press("Enter");
        const up = await names();
        await page.locator("th[aria-sort=ascending]", { hasText: "Sent" }).waitFor();
        await page.locator("#filter").focus();
        await page.keyboard.type("BOB relay");
        const filtered = await names();
        await page.keyboard.press("Control+A");
        await page.keyboard.press("Delete");
        await page.locator("#pause").focus();
        await page.keyboard.press("Space");
        return [[down, up], await page.locator("#pause").getAttribute("aria-pressed"), filtered];
        """
    )
    assert names == [["bob", "alice"], ["alice", "bob"]]
    assert (paused, filtered) == ("true", ["bob"])
    few.close(), many.close()
    assert (
        browser.run(
            """
        const { page } = kept;
        await page.waitForFunction(() => document.querySelector("#now-sessions").textContent === "0");
        const still = await page.locator("#list tbody tr:not(.ended)").count();
        await page.locator("#pause").click();
        await page.waitForFunction(() => !document.querySelector("#list tbody tr:not(.ended)"));
        return still;
        """
        )
        == 2
    )


def test_accessible(browser: Browser, server: Server, origin: Origin) -> None:
    """axe-core finds nothing serious, light and dark, and nothing sticks out at the side of any width."""
    with server.connect(LONG, origin.port):
        found = browser.run(
            """
            const { page } = kept;
            await page.locator("#list tbody tr:not(.ended)").first().waitFor();
            await page.locator("#limits meter").first().waitFor();
            const found = [];
            for (const [width, colorScheme] of [[3840, "dark"], [1280, "dark"], [360, "light"]]) {
              await page.setViewportSize({ width, height: 900 });
              await page.emulateMedia({ colorScheme });
              await page.waitForFunction(() => document.documentElement.scrollWidth <= innerWidth);
              if (width < 3000) found.push(...(await faults(page)));
            }
            await page.setViewportSize({ width: 1280, height: 900 });
            return found;
            """
        )
    assert found == []


class Stranger(BaseHTTPRequestHandler):
    """An empty page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>x</title>")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_address[1]
        httpd.shutdown()


@pytest.fixture
def forwarded(server: Server) -> Iterator[Origin]:
    """A port that leads to the Unix socket of the level admin, as ``ssh -L`` has it."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def lead(client: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(server.directory / "admin.sock"))
            back = threading.Thread(target=copy, args=(admin, client), daemon=True)
            back.start()
            copy(client, admin)
            back.join(5)

    with Origin(lead) as forwarded:
        yield forwarded


def test_other_origins(
    browser: Browser, server: Server, origin: Origin, stranger: int, forwarded: Origin
) -> None:
    """
    A page from elsewhere reads nothing and does nothing, be it next door or by a name that leads here.

    The listener would permit everything.
    """
    with server.connect("alice", origin.port) as client:
        got = browser.run(
            """
            const got = [];
            for (const host of ["127.0.0.1", "evil.example"]) {
              const page = await open(`http://${host}:${given.stranger}/`);
              for (const at of given.places) got.push(...(await page.evaluate(tries, at)));
              await page.context().close();
            }
            complaints.splice(0);
            return got;
            """,
            stranger=stranger,
            places=[f"http://{name}:{forwarded.port}/" for name in ("127.0.0.1", "evil.example")],
        )
        assert got == []
        # A name of another's that leads here has nothing behind it, not even for pages of its own.
        text = browser.run(
            """
            const page = await open(given.url);
            const text = await page.locator("body").textContent();
            await page.context().close();
            complaints.splice(0);
            return text;
            """,
            url=f"http://evil.example:{forwarded.port}/v1/sessions",
        )
        assert "the header Host has no name of this server" in text
        assert "alice" not in text
        client.sendall(b"still")
        assert client.recv(5) == b"still"
    status_now = asks(server.directory / "admin.sock", "GET", "/v1/status").body
    assert status_now["state"] == "running"


def test_restart(browser: Browser, server: Server, origin: Origin) -> None:
    """A page outlives a restart. What was counted before it, and the time between, are no traffic."""
    with server.connect("bob", origin.port, bytes(5_000_000)):
        browser.run(
            """
            const { page } = kept;
            await page.locator("#peak-sent", { hasText: "MB/s" }).waitFor();
            """
        )
    server.stop()
    browser.run("""await kept.page.locator("#link", { hasText: "no connection" }).waitFor();""")
    server.start()
    peak = browser.run(
        """
        const { page } = kept;
        await page.locator("#link", { hasText: "live" }).waitFor();
        return page.locator("#peak-sent").textContent();
        """
    )
    browser.run("complaints.splice(0)")
    with server.connect("bob", origin.port, bytes(2000)):
        told = browser.run(
            """
            const { page } = kept;
            await page.locator("#list tbody tr:not(.ended)", { hasText: "bob" }).first().waitFor();
            await page.locator("#now-sent", { hasText: /^[0-9.]+ k?B/ }).waitFor();
            const text = (id) => page.locator(id).textContent();
            return [await text("#now-sessions"), await text("#peak-sent")];
            """
        )
    assert told == ["1", peak]


def test_gaps(tmp_path: Path) -> None:
    """Where points are missing, no line is drawn; points from before a restart stay."""
    # A folder of its own tells node that these are modules.
    for name in ("plot.js", "words.js"):
        shutil.copy(STATIC / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    command = ["node", str(HERE / "points.mjs"), str(tmp_path / "plot.js")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    drawn, times, sent = json.loads(told.stdout)
    assert drawn == [[100, 101, 102, 103, 110, 111, 112], [1, 1, 1, None, 1, 1, 2]]
    assert times == [120]
    assert sent == [7 / 6]
