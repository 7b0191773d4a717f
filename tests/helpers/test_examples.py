"""The helpers of ``docs/helpers.rst``, run as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from socksproxy.helpers.helper import Helper
from socksproxy.helpers.lines import HelperVerdict
from socksproxy.identity import Client
from socksproxy.policy.helpers import RequestHelper
from socksproxy.values.helpers import HelperSettings
from socksproxy.wire.words import Command
from tests.support.proxy import Playing, closed_port

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples" / "helpers"

pytestmark = pytest.mark.process


class Users(BaseHTTPRequestHandler):
    """An API that knows bob, has no right to tell of eve, and is broken for mallory."""

    def do_POST(self) -> None:
        """Answer."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = {"eve": 403, "mallory": 500}.get(asked["user"], 401)
        self.send_response(200 if asked == {"user": "bob", "password": "s e:cret\n"} else status)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Users)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/check"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest_twisted.inlineCallbacks
def test_ask_api(api: str) -> Playing:
    yes, no, broken = HelperVerdict.YES, HelperVerdict.NO, HelperVerdict.BROKEN
    helper = Helper(reactor, HelperSettings(command=(str(EXAMPLES / "ask_api.py"), api), concurrency=20))
    asked = ((b"bob", b"s e:cret\n"), (b"bob", b"no"), (b"eve", b"x"), (b"mallory", b"x"))
    answers = yield gatherResults([helper.ask(words) for words in asked])
    assert [each.verdict for each in answers] == [yes, no, no, broken]
    helper.close()
    gone = f"http://127.0.0.1:{closed_port()}/"
    helper = Helper(reactor, HelperSettings(command=(str(EXAMPLES / "ask_api.py"), gone), concurrency=20))
    answer = yield helper.ask((b"bob", b"x"))
    assert (answer.verdict, answer.message) == (broken, "the API cannot be reached")
    helper.close()


@pytest_twisted.inlineCallbacks
def test_judge() -> Playing:
    helper = RequestHelper(reactor, "judge", HelperSettings(command=str(EXAMPLES / "judge.py")))
    for user, host in (("bob", "games.example"), ("bob", "a.example"), ("eve", "games.example")):
        answer = helper.permits(Client("192.0.2.1", 1, user), Command.CONNECT, host, 80)
        assert (yield answer) is ((user, host) != ("bob", "games.example"))
    helper.close()
