"""``socksproxy passwd``: see :mod:`socksproxy.cli.passwd`."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from socksproxy.auth.checkers.htpasswd import HashedUsers, PasswordFile, new_hash
from socksproxy.cli import main, passwd as module
from socksproxy.cli.failure import CommandFailed
from socksproxy.cli.passwd import changed_lines, checked_user

from ..support.processes import Program
from ..support.programs import require, run

COMMAND = (sys.executable, "-m", "socksproxy", "passwd")

PASSWORD = "p\N{LATIN SMALL LETTER A WITH DIAERESIS}ss word".encode()

Passwd = Callable[..., int]


@pytest.fixture
def passwd(monkeypatch: pytest.MonkeyPatch) -> Passwd:
    """``passwd(..., data=...)``: run it with a password on standard input, as cheap as it can be."""

    def command(*arguments: object, data: bytes | None = PASSWORD + b"\n") -> int:
        how = []
        if data is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            how = ["--stdin", "--cost", "4"]
        return main(["passwd", *how, *map(str, arguments)])

    return command


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where the file is to be; nothing may be left beside it."""
    (tmp_path / "etc").mkdir()
    yield tmp_path / "etc" / "users"
    assert {entry.name for entry in (tmp_path / "etc").iterdir()} <= {"users"}


def right(path: Path, name: bytes, password: bytes = PASSWORD) -> bool:
    """Whether the proxy would let *name* in."""
    return PasswordFile(str(path)).check(name, password)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What it does.


def test_new_file(passwd: Passwd, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is made, for its owner only, whatever the umask."""
    umask = os.umask(0)
    try:
        assert passwd(path, "bob") == 0
    finally:
        os.umask(umask)
    assert capsys.readouterr() == ("bob: added\n", "")
    assert mode(path) == 0o600
    assert path.read_bytes().startswith(b"bob:$2y$04$")
    assert right(path, b"bob")
    assert not right(path, b"bob", PASSWORD + b" ")


def test_default_cost(passwd: Passwd, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is said, the hash is a good one."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PASSWORD)))
    assert passwd("--stdin", path, "bob", data=None) == 0
    assert path.read_bytes().startswith(b"bob:$2y$12$")


def test_change_and_delete(passwd: Passwd, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others' lines stay as they are, byte for byte, and in their places."""
    before = b"# ours\r\n\neve:$1$x$y:more\n"
    path.write_bytes(before)
    path.chmod(0o600)
    assert passwd(path, "bob") == 0
    assert passwd(path, "joe") == 0
    first = path.read_bytes()
    assert passwd(path, "bob", data=b"other") == 0
    assert right(path, b"bob", b"other")
    assert right(path, b"joe")
    lines, now = first.splitlines(), path.read_bytes().splitlines()
    assert [old == new for old, new in zip(lines, now, strict=True)] == [True, True, True, False, True]
    assert passwd(path, "--delete", "bob", data=None) == 0
    assert path.read_bytes() == before + lines[4] + b"\n"
    said, _ = capsys.readouterr()
    assert said == "bob: added\njoe: added\nbob: changed\nbob: removed\n"


def test_as_editors_write_it(passwd: Passwd, path: Path) -> None:
    """A user's line is found behind a byte order mark and with spaces, so that there is no second one."""
    assert passwd(path, "bob") == 0
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b":", b" : ").replace(b"\n", b"\r\n"))
    assert passwd(path, "bob", data=b"other") == 0
    assert path.read_bytes().count(b"bob") == 1
    assert right(path, b"bob", b"other")


def test_utf16(passwd: Passwd, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that no proxy could read is left alone."""
    content = "# users\n".encode("utf-16")
    path.write_bytes(content)
    assert passwd(path, "bob") == 1
    assert capsys.readouterr().err == "socksproxy: the file is in UTF-16, or has a NUL byte: right is UTF-8\n"
    assert path.read_bytes() == content


def test_last_one_deleted(passwd: Passwd, path: Path) -> None:
    """A proxy that runs takes the file without users for what it is, and not for half-written."""
    assert passwd(path, "bob") == 0
    assert passwd(path, "--delete", "bob", data=None) == 0
    assert path.read_bytes() == b"# no users\n"
    assert HashedUsers.parse(path.read_bytes()).passwords == {}
    assert passwd(path, "bob") == 0
    assert right(path, b"bob")


def test_line_without_end(passwd: Passwd, path: Path) -> None:
    """It is given one."""
    path.write_bytes(b"# ours")
    path.chmod(0o600)
    assert passwd(path, "bob") == 0
    assert right(path, b"bob")


@pytest.mark.interop
def test_with_htpasswd(passwd: Passwd, path: Path) -> None:
    """The real program reads ours, and ours goes on with its files."""
    program = require("htpasswd")
    assert run([program, "-cBiC4", str(path), "eve"], data=b"secret").returncode == 0
    path.chmod(0o600)
    assert passwd(path, "bob") == 0
    assert passwd(path, "eve", data=b"other") == 0
    assert passwd(path, "\N{GREEK SMALL LETTER OMEGA}") == 0
    for name, password, status in (
        ("bob", PASSWORD, 0),
        ("bob", b"x", 3),
        ("eve", b"other", 0),
        ("eve", b"secret", 3),
        ("\N{GREEK SMALL LETTER OMEGA}", PASSWORD, 0),
    ):
        assert run([program, "-vi", str(path), name], data=password).returncode == status
    assert run([program, "-D", str(path), "bob"]).returncode == 0
    assert right(path, b"eve", b"other")
    assert not right(path, b"bob")


@pytest.mark.parametrize(
    "user", [os.fsdecode(b"\xff\xfe"), "a b", "j\N{LATIN SMALL LETTER O WITH DIAERESIS}", "x" * 255, "-x"]
)
def test_names(passwd: Passwd, path: Path, user: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Any bytes that a client can send and a line can hold."""
    assert passwd("--", path, user) == 0
    assert right(path, os.fsencode(user))
    assert capsys.readouterr().out.endswith(": added\n")


# What it keeps.


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o660])
def test_mode_is_kept(passwd: Passwd, path: Path, kept: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert passwd(path, "bob") == 0
    path.chmod(kept)
    assert passwd(path, "eve") == 0
    assert mode(path) == kept
    assert capsys.readouterr().err == ""


def test_open_to_all(passwd: Passwd, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that everybody can read is left so, with a warning."""
    assert passwd(path, "bob") == 0
    path.chmod(0o644)
    assert passwd(path, "eve") == 0
    assert mode(path) == 0o644
    assert capsys.readouterr().err == (
        f"socksproxy: warning: {path}: every user of this machine can read it: chmod o= takes that away\n"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to somebody else")
def test_owner_is_kept(passwd: Passwd, path: Path) -> None:
    assert passwd(path, "bob") == 0
    os.chown(path, 12345, 23456)
    assert passwd(path, "eve") == 0
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_owner_that_cannot_be_kept(
    passwd: Passwd, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that would become somebody else's, which the proxy might not read, is not written."""
    assert passwd(path, "bob") == 0
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    assert passwd(path, "eve") == 1
    assert path.read_bytes() == before
    assert "owner would be lost" in capsys.readouterr().err


def test_link_is_kept(passwd: Passwd, path: Path, tmp_path: Path) -> None:
    """What is changed is the file that a symbolic link leads to."""
    link = tmp_path / "link"
    link.symlink_to(path)
    assert passwd(link, "bob") == 0
    assert link.is_symlink()
    assert right(path, b"bob")


def test_new_file_in_one_step(passwd: Passwd, path: Path) -> None:
    """Who has the old one open still reads the old one, whole."""
    assert passwd(path, "bob") == 0
    with path.open("rb") as old:
        before = path.read_bytes()
        assert passwd(path, "eve") == 0
        assert old.read() == before
        assert not os.path.samestat(os.fstat(old.fileno()), path.stat())


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("exists", [False, True])
def test_full_disk(
    passwd: Passwd,
    path: Path,
    step: str,
    exists: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When it cannot be written, the file is as it was, or not there."""
    if exists:
        assert passwd(path, "bob") == 0
    before = path.read_bytes() if exists else None
    capsys.readouterr()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    assert passwd(path, "eve") == 1
    assert (path.read_bytes() if path.exists() else None) == before
    assert capsys.readouterr() == ("", f"socksproxy: {path}: no space left on device\n")


# Several at once.


def test_locked(
    passwd: Passwd, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for another one that is at work, not for ever."""
    assert passwd(path, "bob") == 0
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert passwd(path, "eve") == 1
    assert "another process keeps the file locked" in capsys.readouterr().err
    assert passwd(path, "eve") == 0


def test_many_writers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that change a file at once, from none on, no change is lost, and no half of it is seen."""
    monkeypatch.setattr(module, "PATIENCE", 300)
    names = [[b"user%d.%d" % (writer, number) for number in range(15)] for writer in range(6)]
    hash = new_hash(b"x", 4)
    problems: list[BaseException] = []

    def write(users: list[bytes]) -> None:
        try:
            for user in users:
                assert not module._change(str(path), {user: hash})
        except BaseException as problem:
            problems.append(problem)

    writers = [threading.Thread(target=write, args=(users,)) for users in names]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            count = len(HashedUsers.parse(path.read_bytes()).passwords)
            assert count >= seen
            seen = count
    assert problems == []
    assert set(HashedUsers.parse(path.read_bytes()).passwords) == {user for users in names for user in users}


# What it does not do.


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("", "a user's name has 1 to 255 bytes, not 0"),
        ("x" * 256, "a user's name has 1 to 255 bytes, not 256"),
        ("\N{EURO SIGN}" * 86, "a user's name has 1 to 255 bytes, not 258"),
        ("a:b", "a user's name has no colon: it ends at one in the file"),
        ("a\nb", "a user's name has no control characters"),
        ("a\x7fb", "a user's name has no control characters"),
        ("a\x9bb", "a user's name has no control characters"),
        ("#a", "a user's name does not begin with # or a space, nor end with a space"),
        (" a", "a user's name does not begin with # or a space, nor end with a space"),
        ("a ", "a user's name does not begin with # or a space, nor end with a space"),
    ],
)
def test_bad_names(
    passwd: Passwd, path: Path, user: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names that a line cannot hold, or no client send."""
    assert passwd(path, user) == 1
    assert capsys.readouterr() == ("", f"socksproxy: {why}\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"a\nb\n", "there is more than one line on standard input"),
        (b"a\0b", "the password has a NUL in it"),
        (b"x" * 73, "the password has 73 bytes, and bcrypt looks only at the first 72"),
        ("\N{EURO SIGN}".encode() * 25, "the password has 75 bytes, and bcrypt looks only at the first 72"),
        (b"x" * 256, "SOCKS clients cannot send a password of more than 255 bytes"),
    ],
)
def test_bad_passwords(
    passwd: Passwd, path: Path, data: bytes, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Passwords that no client could send, or that would be less than they seem."""
    assert passwd(path, "bob", data=data) == 1
    assert capsys.readouterr() == ("", f"socksproxy: {why}\n")
    assert not path.exists()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_longest_password(passwd: Passwd, path: Path, end: bytes) -> None:
    """Any bytes but NUL and the end of the line."""
    password = bytes(range(1, 10)) + b"\xff" * 63
    assert passwd(path, "bob", data=password + end) == 0
    assert right(path, b"bob", password)


@pytest.mark.parametrize("exists", [False, True])
def test_delete_nobody(passwd: Passwd, path: Path, exists: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is not there cannot be removed, and no file is made for it."""
    if exists:
        assert passwd(path, "bob") == 0
        capsys.readouterr()
    assert passwd("--delete", path, "eve", data=None) == 1
    why = "there is no such user in the file" if exists else f"{path}: no such file or directory"
    assert capsys.readouterr() == ("", f"socksproxy: {why}\n")
    assert path.exists() is exists


def test_not_a_file(passwd: Passwd, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert passwd(tmp_path, "bob") == 1
    os.mkfifo(tmp_path / "fifo")
    assert passwd(tmp_path / "fifo", "bob") == 1
    assert passwd(tmp_path / "nowhere" / "users", "bob") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"socksproxy: {tmp_path} is not a file",
        f"socksproxy: {tmp_path}/fifo is not a file",
        f"socksproxy: {tmp_path}/nowhere/users: no such file or directory",
    ]


@pytest.mark.parametrize("cost", ["3", "18", "-1"])
def test_bad_cost(passwd: Passwd, path: Path, cost: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert passwd(f"--cost={cost}", path, "bob") == 1
    assert capsys.readouterr().err == f"socksproxy: --cost {cost}: not a number from 4 to 17\n"


@pytest.mark.parametrize(
    "arguments", [[], ["passwd"], ["passwd", "x"], ["what"], ["passwd", "--delete", "--stdin", "x", "y"]]
)
def test_usage(arguments: list[str]) -> None:
    """Arguments that make no sense are argparse's, with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@given(st.text())
def test_any_name(name: str) -> None:
    """A name that is taken stands in a line, and is found there."""
    try:
        user = checked_user(name)
    except (CommandFailed, UnicodeEncodeError):
        return
    lines, were_there = changed_lines([b"eve:x"], {user: b"hash"})
    assert were_there == ({user} if user == b"eve" else set())
    again, were_there = changed_lines(lines, {user: None})
    assert were_there == {user}
    assert again == ([] if user == b"eve" else [b"eve:x"])
    assert b"\n".join(lines).count(b"\n") == len(lines) - 1


# On a terminal.

#: Makes standard input the terminal of the process.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """The command on a terminal of its own, and what is seen there."""

    def __init__(self, *arguments: object) -> None:
        self.ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *COMMAND, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = b""

    def wait_for(self, words: bytes) -> None:
        """Read until *words* are there."""
        while words not in self.seen:
            self.seen += os.read(self.ours, 1000)

    def type(self, data: bytes) -> None:
        """What the operator types."""
        os.write(self.ours, data)

    def end(self) -> int:
        """Read to the end; the exit status."""
        while True:
            try:
                data = os.read(self.ours, 1000)
            except OSError:
                break  # the other side is closed
            if not data:
                break
            self.seen += data
        os.close(self.ours)
        return self.process.wait(60)


def test_prompt(path: Path) -> None:
    """The password is asked for twice, and not shown."""
    terminal = Terminal("--cost", "4", path, "bob")
    terminal.wait_for(b"Password: ")
    terminal.type(PASSWORD + b"\n")
    terminal.wait_for(b"Again: ")
    terminal.type(PASSWORD + b"\n")
    assert terminal.end() == 0
    assert PASSWORD not in terminal.seen
    assert b"bob: added" in terminal.seen
    assert right(path, b"bob")


@pytest.mark.parametrize(
    ("again", "status", "why"),
    [
        (b"other\n", 1, b"socksproxy: the two are not the same"),
        (b"\x04", 1, b"that is no password"),
        (b"\x03", 130, b""),
    ],
    ids=["different", "end", "interrupt"],
)
def test_prompt_fails(path: Path, again: bytes, status: int, why: bytes) -> None:
    """Two that differ, no second one, a change of mind: nothing is done, and no traceback is shown."""
    terminal = Terminal("--cost", "4", path, "bob")
    terminal.wait_for(b"Password: ")
    terminal.type(PASSWORD + b"\n")
    terminal.wait_for(b"Again: ")
    terminal.type(again)
    assert terminal.end() == status
    assert why in terminal.seen
    assert b"Traceback" not in terminal.seen
    assert not path.exists()


def test_no_terminal(path: Path) -> None:
    """Where there is none, nobody's typing is shown: the other way is named."""
    done = subprocess.run(
        [*COMMAND, str(path), "bob"], input=PASSWORD, capture_output=True, start_new_session=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == b"socksproxy: there is no terminal on which to ask for the password: use --stdin\n"
    assert not path.exists()


# As a program.


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
)
def test_without_unicode(environment: dict[str, str], path: Path) -> None:
    """A terminal that knows ASCII only is shown every name."""
    command = [*COMMAND, "--stdin", "--cost", "4", str(path), "b\u00fccher"]
    done = subprocess.run(
        command, input=PASSWORD, capture_output=True, env={**os.environ, **environment}, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"b\\")
    assert done.stdout.endswith(b"cher: added\n")


def test_without_its_packages(path: Path) -> None:
    """It says what to install."""
    code = "import sys; sys.modules['passlib'] = None; from socksproxy.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "passwd", "--stdin", str(path), "bob"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("socksproxy: the extra [htpasswd] is not installed (")
    assert done.stderr.endswith("): pip install 'twisted-socksproxy[htpasswd]'\n")


def test_script() -> None:
    """The script that is installed is this command."""
    from importlib.metadata import entry_points

    (script,) = [entry for entry in entry_points(group="console_scripts") if entry.name == "socksproxy"]
    assert script.load() is main


@pytest.mark.parametrize("arguments", [["--help"], ["passwd", "--help"], ["--version"]])
def test_help(arguments: list[str], start: Callable[..., Program]) -> None:
    program = start([sys.executable, "-m", "socksproxy", *arguments])
    assert program.wait() == 0
    assert "socksproxy" in program.output
    assert all(len(line) <= 100 for line in program.output.splitlines())


def test_proxy_takes_the_file(passwd: Passwd, path: Path, tmp_path: Path) -> None:
    """What is made here is what ``--auth htpasswd:FILE`` reads, without a word of warning."""
    from twisted.cred.strcred import makeChecker

    from ..support.logs import heard

    assert passwd(path, "bob") == 0
    with heard() as lines:
        checker: Any = makeChecker(f"htpasswd:{path}")
    assert lines == []
    assert checker.version == 0


# Many users at once.


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bytes], int]:
    """``bring(path, lines)``: import *lines* from standard input."""

    def command(path: Path, lines: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        return main(["passwd", "--import", "--cost", "4", str(path), "-"])

    return command


Bring = Callable[[Path, bytes], int]
HASHED = new_hash(b"of carol", 4)


def test_import(bring: Bring, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passwords are hashed, hashes stay, other lines of the file too; a new file is the owner's."""
    assert bring(path, b"\xef\xbb\xbf# all\n\nbob:a:b \r\neve:secret\ncarol:" + HASHED + b" :Carol") == 0
    assert capsys.readouterr() == ("added: 3, changed: 0\n", "")
    assert mode(path) == 0o600
    assert right(path, b"bob", b"a:b ")
    assert right(path, b"eve", b"secret")
    assert path.read_bytes().endswith(b"\ncarol:" + HASHED + b"\n")
    before = path.read_bytes().splitlines()
    assert bring(path, b"dave:x\neve:other") == 0
    assert capsys.readouterr() == ("added: 1, changed: 1\n", "")
    after = path.read_bytes().splitlines()
    assert [after[0], after[2]] == [before[0], before[2]]
    assert [line.split(b":")[0] for line in after] == [b"bob", b"eve", b"carol", b"dave"]
    assert right(path, b"eve", b"other")


def test_import_from_a_file(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file may be named as well."""
    users = tmp_path / "all"
    users.write_bytes(b"bob:" + HASHED)
    assert main(["passwd", "--import", str(path), str(users)]) == 0
    assert path.read_bytes() == b"bob:" + HASHED + b"\n"
    assert main(["passwd", "--import", str(path), str(tmp_path / "missing")]) == 1
    assert "missing: " in capsys.readouterr().err


def test_import_of_mistakes(bring: Bring, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is told with its line, no password is; nothing is changed and no file is made."""
    lines = [
        b"bob:fine",
        b"topsecret",
        b":topsecret",
        b"eve:",
        b"bob:topsecret",
        b"carol:$1$topsecret$x",
        b"dave:" + HASHED[:-3],
        b"fred:{SHA}topsecret",
        b"gina:" + b"topsecret" * 9,
        b"hal :topsecret",
    ]
    assert bring(path, b"\n".join(lines)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "topsecret" not in err
    told = err.splitlines()
    assert [line.split(": ")[0] for line in told[:-1]] == [f"-, line {number}" for number in range(2, 11)]
    assert told[2].endswith("the password is empty")
    assert told[3].endswith("the user has a line above")
    assert told[4].endswith("a hash of another kind")
    assert told[5].endswith("the hash is not whole")
    assert told[-1].endswith("-: mistakes: 9; the users stay as they were")
    assert not path.exists()


def test_many_mistakes(bring: Bring, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the first are told."""
    assert bring(path, b"x\n" * 1000) == 1
    assert len(capsys.readouterr().err.splitlines()) == 11


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "there is no user in it"),
        (b"# nobody\n", "there is no user in it"),
        ("bob:x\n".encode("utf-16"), "it is in UTF-16"),
        (b"a:x\nb:x\nc:x\n", "split it"),
        (b"#" * 101, "more than"),
    ],
)
def test_import_bounds(
    content: bytes,
    why: str,
    bring: Bring,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is no file of users, or too large, changes nothing."""
    monkeypatch.setattr(module, "MOST_PLAIN", 2)
    monkeypatch.setattr(module, "MOST_IMPORTED", 100)
    assert bring(path, content) == 1
    assert why in capsys.readouterr().err
    assert not path.exists()
