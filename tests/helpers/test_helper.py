"""The processes of a helper: see :mod:`socksproxy.helpers.helper`. They are real ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, gatherResults

from socksproxy.helpers import helper as module, process
from socksproxy.helpers.helper import Helper
from socksproxy.helpers.lines import HelperAnswer, HelperVerdict
from tests.support.helpers import Program
from tests.support.logs import heard
from tests.support.proxy import Playing, until

pytestmark = pytest.mark.process

reactor: Any = _reactor


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def start(program: Program) -> Iterator[Any]:
    helpers = []

    def started(**changes: object) -> Helper:
        helpers.append(Helper(reactor, program.settings(**changes)))
        return helpers[-1]

    yield started
    for each in helpers:
        each.kill()


def running(helper: Helper) -> list[int]:
    return [each.transport.pid for each in helper._processes]


def stops(helper: Helper) -> Any:
    """What the reactor does when it stops; it goes on for the tests behind."""
    reactor.removeSystemEventTrigger(helper._triggers[0])
    return helper._shut_down()


@pytest.mark.parametrize("concurrency", [0, 3])
@pytest_twisted.inlineCallbacks
def test_answers(start: Any, program: Program, concurrency: int) -> Playing:
    """Each question has its own answer, whichever process has it."""
    helper = start(concurrency=concurrency, children=2)
    words = ["yes", "no", "broken", "named"] * 10
    answers = yield gatherResults([helper.ask((b"bob", word.encode())) for word in words])
    yes, no, broken = HelperVerdict.YES, HelperVerdict.NO, HelperVerdict.BROKEN
    expected = {"yes": yes, "no": no, "broken": broken, "named": yes}
    assert [each.verdict for each in answers] == [expected[word] for word in words]
    assert {each.words.get("user") for each in answers} == {None, "alice"}
    assert len(running(helper)) == 2
    assert len(program.lines) == 40


@pytest_twisted.inlineCallbacks
def test_starts_when_needed(start: Any, program: Program) -> Playing:
    """No process starts before a question, and one that waits is asked before another starts."""
    helper = start()
    assert program.starts == 0
    for _ in range(3):
        yield helper.ask((b"yes",))
    assert program.starts == 1


@pytest_twisted.inlineCallbacks
def test_asked_once_more(start: Any, program: Program) -> Playing:
    """A process that ends gives its question back: it is asked once more, and not again."""
    helper = start(children=1, timeout=20)
    yield helper.ask((b"yes",))
    answer = yield helper.ask((b"die",))
    assert answer == HelperAnswer(HelperVerdict.BROKEN, {"message": "the process of the helper has ended"})
    assert program.lines == ["yes", "die", "die"]
    assert (yield helper.ask((b"yes",))).verdict is HelperVerdict.YES


@pytest_twisted.inlineCallbacks
def test_killed(start: Any, program: Program) -> Playing:
    """A process that is killed is replaced, and no client notices."""
    helper = start(children=1)
    yield helper.ask((b"yes",))
    (pid,) = running(helper)
    os.kill(pid, signal.SIGKILL)
    assert (yield helper.ask((b"yes",))).verdict is HelperVerdict.YES
    assert running(helper) != [pid]


@pytest_twisted.inlineCallbacks
def test_never_answers(start: Any, program: Program) -> Playing:
    """A program that always ends is not started over and over, and questions do not wait for it."""
    helper = start(children=1, timeout=20)
    answers = yield gatherResults([helper.ask((b"die",)) for _ in range(10)])
    assert {each.verdict for each in answers} == {HelperVerdict.BROKEN}
    assert program.starts <= 4


@pytest.mark.parametrize("concurrency", [0, 2])
@pytest_twisted.inlineCallbacks
def test_timeout(start: Any, program: Program, concurrency: int) -> Playing:
    """A late answer is none, and never the answer to the next question."""
    helper = start(children=1, concurrency=concurrency, timeout=20)
    yield helper.ask((b"yes",))
    (pid,) = running(helper)
    helper.settings = program.settings(children=1, concurrency=concurrency, timeout=0.3)
    answer = yield helper.ask((b"hang",))
    assert answer == HelperAnswer(HelperVerdict.BROKEN, {"message": "no answer within 0.3 seconds"})
    helper.settings = program.settings(children=1, concurrency=concurrency, timeout=20)
    assert (yield helper.ask((b"no",))).verdict is HelperVerdict.NO
    assert (running(helper) == [pid]) == bool(concurrency)


@pytest_twisted.inlineCallbacks
def test_cancelled(start: Any, program: Program) -> Playing:
    """A question that nobody waits for leaves the queue; the process is not asked the next one too early."""
    helper = start(children=1)
    yield helper.ask((b"yes",))
    asked, waiting = helper.ask((b"hang",)), helper.ask((b"no",))
    waiting.cancel()
    asked.cancel()
    for each in (asked, waiting):
        with pytest.raises(CancelledError):
            yield each
    assert (yield helper.ask((b"yes",))).verdict is HelperVerdict.YES
    assert "no" not in program.lines


@pytest_twisted.inlineCallbacks
def test_garbage(start: Any, program: Program) -> Playing:
    helper = start(children=1)
    with heard() as lines:
        answer = yield helper.ask((b"garbage",))
    assert answer.verdict is HelperVerdict.BROKEN
    assert any("breaks the protocol: the answer is none of OK, ERR and BH" in line for line in lines)


@pytest_twisted.inlineCallbacks
def test_standard_error(start: Any) -> Playing:
    """What a program says to the operator is in the log."""
    helper = start(children=1)
    with heard() as lines:
        yield helper.ask((b"says",))
        yield until(lambda: any("says: a word to the operator" in line for line in lines))


@pytest_twisted.inlineCallbacks
def test_no_such_program(start: Any, program: Program) -> Playing:
    helper = start()
    program.path.unlink()
    answer = yield helper.ask((b"yes",))
    assert answer.verdict is HelperVerdict.BROKEN


@pytest_twisted.inlineCallbacks
def test_close(start: Any) -> Playing:
    """The processes end: they read the end of their input, and are no zombies."""
    helper = start(children=1)
    yield helper.ask((b"yes",))
    (pid,) = running(helper)
    helper.close()
    yield until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert running(helper) == []


@pytest.mark.parametrize("concurrency", [0, 2])
@pytest_twisted.inlineCallbacks
def test_close_while_asked(start: Any, program: Program, concurrency: int) -> Playing:
    """The processes answer what they are asked, and end then."""
    helper = start(children=1, concurrency=concurrency, timeout=20)
    asked = [helper.ask((word,)) for word in (b"wait", b"yes", b"no")]
    yield until(lambda: "wait" in " ".join(program.lines))
    (pid,) = running(helper)
    helper.close()
    program.go_on()
    answers = yield gatherResults(asked)
    assert [each.verdict.value for each in answers] == ["OK", "OK", "ERR"]
    yield until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert (running(helper), program.starts) == ([], 1)
    assert (yield helper.ask((b"no",))).verdict is HelperVerdict.NO
    assert len(running(helper)) == 1


@pytest_twisted.inlineCallbacks
def test_close_while_it_owes_an_answer(start: Any, program: Program) -> Playing:
    """A process for whose answers nothing waits ends, although it has not given all of them."""
    helper = start(children=1, concurrency=2)
    asked = helper.ask((b"hang",))
    asked.addErrback(lambda failure: failure.trap(CancelledError) and None)
    yield until(lambda: program.lines)
    (pid,) = running(helper)
    helper.close()
    asked.cancel()
    yield until(lambda: not os.path.exists(f"/proc/{pid}"))


@pytest_twisted.inlineCallbacks
def test_the_reactor_stops(start: Any, program: Program, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """The reactor waits for processes that end, and not for long for others: these are killed at last."""
    helper = start(children=1, timeout=20)
    yield helper.ask((b"yes",))
    (idle,) = running(helper)
    yield stops(helper)
    yield until(lambda: not os.path.exists(f"/proc/{idle}"))
    monkeypatch.setattr(module, "HOLDS_FOR", 0.01)
    asked = helper.ask((b"hang",))  # of a session that has not ended
    yield until(lambda: "hang" in program.lines)
    (busy,) = running(helper)
    yield stops(helper)
    assert running(helper) == [busy]
    reactor.removeSystemEventTrigger(helper._triggers[0])
    helper._shut_down_now()
    assert (yield asked).words["message"] == "the helper is closed"
    yield until(lambda: not os.path.exists(f"/proc/{busy}"))


@pytest_twisted.inlineCallbacks
def test_kill(start: Any, program: Program) -> Playing:
    """Questions have no answer then, and a process that hangs is killed."""
    helper = start(children=1)
    yield helper.ask((b"yes",))
    (pid,) = running(helper)
    asked = [helper.ask((b"hang",)) for _ in range(3)]
    helper.kill()
    answers = yield gatherResults(asked)
    assert answers == [HelperAnswer(HelperVerdict.BROKEN, {"message": "the helper is closed"})] * 3
    yield until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert program.starts == 1
    assert (yield helper.ask((b"no",))).verdict is HelperVerdict.NO


@pytest_twisted.inlineCallbacks
def test_idle(start: Any, monkeypatch: pytest.MonkeyPatch) -> Playing:
    """A process that is not asked for a while ends, and the next question starts one."""
    monkeypatch.setattr(module, "IDLE", 0.2)
    helper = start(children=1)
    yield helper.ask((b"yes",))
    yield until(lambda: not running(helper))
    assert (yield helper.ask((b"yes",))).verdict is HelperVerdict.YES


@pytest_twisted.inlineCallbacks
def test_owes_all_answers(start: Any, program: Program) -> Playing:
    """A program that loses questions is started anew when all of its channels are taken."""
    helper = start(children=1, concurrency=2, timeout=20)
    assert (yield helper.ask((b"yes",))).verdict is HelperVerdict.YES
    helper.settings = program.settings(children=1, concurrency=2, timeout=0.2)
    yield gatherResults([helper.ask((b"hang",)) for _ in range(2)])
    helper.settings = program.settings(children=1, concurrency=2, timeout=20)
    assert (yield helper.ask((b"no",))).verdict is HelperVerdict.NO
    assert program.starts == 2


@pytest.mark.parametrize("closes", ["", "exec 1>&-;"])
@pytest_twisted.inlineCallbacks
def test_does_not_end(start: Any, monkeypatch: pytest.MonkeyPatch, closes: str) -> Playing:
    """A program that closes its output, or does not mind the end of its input, is not left behind."""
    monkeypatch.setattr(process, "ENDS_WITHIN", 0.2)
    helper = start(command=("/bin/sh", "-c", f"read q; echo OK; {closes} exec sleep 60"), timeout=20)
    assert (yield helper.ask((b"yes",))).verdict is HelperVerdict.YES
    (pid,) = running(helper)
    if not closes:
        helper.close()
    yield until(lambda: not os.path.exists(f"/proc/{pid}"))


@pytest_twisted.inlineCallbacks
def test_too_many_wait(start: Any, monkeypatch: pytest.MonkeyPatch) -> Playing:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    helper = start(children=1)
    yield helper.ask((b"yes",))
    asked = [helper.ask((b"hang",)) for _ in range(3)]
    answer = yield helper.ask((b"yes",))
    assert answer == HelperAnswer(HelperVerdict.BROKEN, {"message": "too many questions wait"})
    for each in asked:
        each.addErrback(lambda failure: failure.trap(CancelledError) and None)
        each.cancel()
