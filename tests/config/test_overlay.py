"""The file of a node, over the file of all nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from socksproxy.cli import main
from socksproxy.config.command_line import Mistakes, SOCKSOptions
from socksproxy.config.overlay import overlaid
from socksproxy.config.syntax import parsed
from socksproxy.workers.descriptor_passing import file_of
from socksproxy.workers.worker import options_of

from ..support.workers import orders

COMMON = """\
[listeners]
listen = ["tcp:1080:interface=127.0.0.1", "tcp:1081:interface=127.0.0.1"]
advertise = ["192.0.2.1"]

[timeouts]
idle-timeout = 60
connect-timeout = 5

[[rule]]
name = "first"
allow = true

[limits.user]
sessions = 10
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("common.toml").write_text(COMMON)


def options(node: str, *more: str) -> SOCKSOptions:
    Path("n1.toml").write_text(node)
    made = SOCKSOptions()
    made.parseOptions(["--config=common.toml", "--node=n1.toml", *more])
    return made


def mistakes(node: str, *more: str) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        options(node, *more)
    return list(caught.value.lines)


@pytest.mark.parametrize(
    ("node", "together"),
    [
        ("", {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 1}]}),
        ("[a]\nb = 2", {"a": {"b": 2, "c": [1, 2]}, "d": [{"e": 1}]}),
        ("[a]\nc = [3]", {"a": {"b": 1, "c": [3]}, "d": [{"e": 1}]}),
        ("[a.n]\nx = 1\n[f]", {"a": {"b": 1, "c": [1, 2], "n": {"x": 1}}, "d": [{"e": 1}], "f": {}}),
        ("[[d]]\nz = 1", {"a": {"b": 1, "c": [1, 2]}, "d": [{"z": 1}]}),
        ("a = 5", {"a": 5, "d": [{"e": 1}]}),
    ],
)
def test_overlaid(node: str, together: object) -> None:
    """Tables go into one another; other values, lists of tables too, take the place of the common ones."""
    common, lines = parsed(b"[a]\nb = 1\nc = [1, 2]\n[[d]]\ne = 1\n")
    assert overlaid(common, lines, *parsed(node.encode()))[0] == together


def test_options() -> None:
    """A node's listeners and addresses are its own, what else the files say is common."""
    made = options('[listeners]\nlisten = ["tcp:1082:interface=127.0.0.1"]\nadvertise = ["198.51.100.7"]\n')
    assert made["listen"] == ["tcp:1082:interface=127.0.0.1"]
    assert made.plan.settings.timeouts.idle == 60
    assert made.plan.settings.limits.user.sessions == 10
    assert made.shown["listeners"]["advertise"] == ["198.51.100.7"]
    assert options("[timeouts]\nidle-timeout = 7", "--idle-timeout=9").plan.settings.timeouts.idle == 9


def test_node_name() -> None:
    Path("common.toml").write_text('[shared]\nstore = "unix:///nowhere"\nrequired = false\nnodes = 2\n')
    made = options('[node]\nname = "n7"\n')
    assert made.plan.settings.shared is not None
    assert made.plan.settings.shared.settings.node == "n7"


def test_mistakes() -> None:
    """Each names the file that it is in; those of the common file come first."""
    Path("common.toml").write_text(COMMON.replace("connect-timeout", "idle-timeuot = 1\nconnect-timeout"))
    assert mistakes('[listeners]\nadvertise = ["nonsense"]\nprot = 1\n\n[timeouts]\nidle-timeout = -1\n') == [
        "common.toml:7: [timeouts] idle-timeuot: no such key; did you mean idle-timeout?",
        "n1.toml:2: [listeners] advertise[0] = \"nonsense\": 'nonsense' is not a literal address",
        "n1.toml:3: [listeners] prot: no such key; did you mean port?",
        "n1.toml:6: [timeouts] idle-timeout = -1: not a number of seconds, or 0 for never",
    ]


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ("[listeners\n", "n1.toml:1:11: expected ']' at the end of a table declaration"),
        ('[[rule]]\nname = "my"\nallow = "x"\n', 'n1.toml:3: [[rule]] "my" allow = "x": must be true or'),
        ('[listeners]\nlisten = ["tcp:x"]\n', "n1.toml:2: [listeners] listen[0] = "),
        ("[listeners]\nport = 9\n", "common.toml:2: [listeners] listen"),
        ("timeouts = 5\n", "n1.toml:1: timeouts: not a table"),
    ],
)
def test_mistake(node: str, line: str) -> None:
    assert line in mistakes(node)[0]


def test_very_many() -> None:
    """The line of the end of a long list would be one of the other file, so it has none."""
    lines = mistakes("[listeners]\n" + "".join(f"unknown{number} = 1\n" for number in range(103)))
    assert "common.toml: and 3 more such mistakes" in lines


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--node=n1.toml"], "--node needs --config FILE"),
        (
            ["--config=common.toml", "--node=n1.toml", "--node", "n2.toml"],
            "^--node: there are two files, n1.toml and n2.toml$",
        ),
        (["--config=common.toml", "--config=x"], "^--config: there are two files, common.toml and x$"),
        (["--config=common.toml", "--node=nowhere"], "^--node nowhere: no such file or directory$"),
        (["--config=common.toml", "--node=/dev/zero"], "^--node /dev/zero: is not a regular file$"),
    ],
)
def test_no_such_file(arguments: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SOCKSOptions().parseOptions(arguments)


def test_again() -> None:
    """A reload reads both files."""
    made = options("[timeouts]\nidle-timeout = 7")
    Path("n1.toml").write_text("[timeouts]\nidle-timeout = 8")
    assert made.again().plan.settings.timeouts.idle == 8


def test_worker() -> None:
    """A worker has what the supervisor has read, whatever the files hold by then."""
    arguments = ["--config=common.toml", "--node=n1.toml"]
    files = {"config": file_of(COMMON.encode()), "node": file_of(b"[timeouts]\nidle-timeout = 9")}
    made, _ = options_of(orders(arguments=arguments, listeners=[[], []], log=None, **files), None)
    made.parseOptions(arguments)
    assert made.plan.settings.timeouts.idle == 9
    told = orders(config=0, node=1, listeners=[], files={}, log=None).here([7, 8])
    assert (told.config, told.node) == (7, 8)


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """``check`` and ``explain`` have the same option."""
    Path("n1.toml").write_text('[outgoing]\noutgoing = ["127.0.0.1"]\n')
    assert main(["check", "common.toml", "--node", "n1.toml"]) == 0
    asked = ["explain", "common.toml", "connect", "192.0.2.9:80", "--node"]
    assert main([*asked, "n1.toml"]) == 0
    assert "127.0.0.1" in capsys.readouterr().out
    Path("n1.toml").write_text("[outgoing]\nnothing = 1\n")
    for command in (["check", "common.toml", "--node", "n1.toml"], [*asked, "n1.toml"]):
        assert main(command) == 1
        assert "n1.toml:2: [outgoing] nothing: no such key" in capsys.readouterr().err
    for command in (["check", "common.toml", "--node", "nowhere"], [*asked, "nowhere"]):
        assert main(command) == 1
        assert "nowhere: no such file" in capsys.readouterr().err
