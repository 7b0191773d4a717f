"""The README and the documentation: what they say of the program is what it is."""

from __future__ import annotations

import errno
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

import socksproxy
from socksproxy import Address, Client, Command
from socksproxy.app import Options
from socksproxy.auth.checkers.htpasswd import new_hash
from socksproxy.cli import main
from socksproxy.config import command_line as options_module
from socksproxy.config.admin import ADMIN_KEYS, ADMIN_LISTENER_KEYS
from socksproxy.config.helpers import HELPER_KEYS
from socksproxy.config.limits import LIMIT_KEYS, PREFIX_KEYS
from socksproxy.config.options import PLACES, TABLES, keys_of
from socksproxy.config.rules import RULE_KEYS
from socksproxy.config.sets import SET_KEYS
from socksproxy.config.sticky import STICKY_KEYS
from socksproxy.config.upstreams import UPSTREAM_KEYS
from socksproxy.config.users import GROUP_KEYS, USER_KEYS
from socksproxy.events import FIELDS, Cause
from socksproxy.negotiation import TRANSITIONS, State

from .support.docs import DOCS, README, TEXTS, blocks, table
from .support.modules import module_at
from .support.origin import connected
from .support.processes import TWISTD, Program

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTEN = "tcp:1080:interface=127.0.0.1"

_HASH = "$2y$04$sjS4Fd6DIVw3yO1.FqKOMuQB4sRgqnPWTXW0uUuFj8f5Wd2FCOp0m"
_USERS = f"bob:{_HASH}\n"


def python_blocks() -> list[Any]:
    found = []
    for path in TEXTS:
        for number, block in enumerate(blocks(path, ".. code-block:: python")):
            found.append(pytest.param(block, id=f"{path.stem}-{number}"))
    return found


def toml_blocks() -> list[Any]:
    found = []
    for path in TEXTS:
        for number, block in enumerate(blocks(path, ".. code-block:: toml")):
            found.append(pytest.param(block, id=f"{path.stem}-{number}"))
    return found


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    """``docs/_ext/tables.py``."""
    return module_at(DOCS / "_ext" / "tables.py")


# The README.


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m pip install . && twistd -n socks",
        "python3 -m pip install -e '.[test]' && python3 -m pytest",
    ],
)
def test_the_two_commands(command: str) -> None:
    """Who has read nothing else can start it and test it."""
    assert f"\n    {command}\n" in README.read_text("utf-8")


def test_help_in_readme(start: Callable[..., Program]) -> None:
    """The README's options are those of the program. To mend it: COLUMNS=80 twistd socks --help."""
    program = start([*TWISTD, "socks", "--help"], {"COLUMNS": "80"})
    assert program.wait() == 0
    said = [line.rstrip() for line in program.output.strip("\n").splitlines()]
    assert blocks(README, "``twistd socks --help``::")[0].splitlines() == said


def command_lines() -> list[str]:
    block = next(block for block in blocks(README, "::") if block.startswith("twistd"))
    return [line.partition(" # ")[0].strip() for line in block.splitlines()]


@pytest.mark.parametrize("line", command_lines())
def test_command_lines(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README says one can type is taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options_module, "is_local", lambda address: True)
    (tmp_path / "users").write_text(_USERS)
    line = line.replace("docs/examples", str(DOCS / "examples"))
    words = shlex.split(line.replace("/etc/socks.users", str(tmp_path / "users")))
    assert words[:3] == ["twistd", "-n", "socks"]
    options = Options(MemoryReactorClock())
    options.parseOptions(words[3:])
    assert options.plan.listeners


def test_rules_in_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that the README shows has no mistake, and decides as it says."""
    users, file = tmp_path / "socks.users", tmp_path / "socks.toml"
    users.write_text(_USERS)
    block, how_much = blocks(README, ".. code-block:: toml")
    file.write_text(how_much.replace("/var/lib/socks", str(tmp_path)).replace("$2b$12$...", _HASH))
    assert main(["check", str(file)]) == 0
    file.write_text(block.replace("192.0.2.1", "127.0.0.1").replace("/etc/socks.users", str(users)))
    assert main(["check", str(file)]) == 0
    capsys.readouterr()
    (line,) = [line for line in README.read_text("utf-8").splitlines() if "socksproxy explain" in line]
    assert main([str(file) if word == "socks.toml" else word for word in line.split()[1:]]) == 0
    assert "example.com:443: allowed (by rule web)" in capsys.readouterr().out


def test_readme_renders() -> None:
    """The package's page on the index shows the README, not its source."""
    pytest.importorskip("docutils")
    options = ["--report=1", "--halt=1", "--writer=html5"]
    command = [sys.executable, "-m", "docutils", *options, str(README)]
    rendered = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
    assert (rendered.returncode, rendered.stderr) == (0, "")
    assert "<table" in rendered.stdout


# Code in the texts.


@pytest.mark.parametrize("block", python_blocks())
def test_python_compiles(block: str) -> None:
    """Code that is copied from the documentation is Python."""
    assert compile(block, "documentation", "exec")


@pytest.mark.parametrize("block", toml_blocks())
def test_toml_is_checked(block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables that are copied from the documentation have no mistake."""
    file = tmp_path / "socks.toml"
    for name, text in (
        ("socks.users", _USERS),
        ("socks.htpasswd", _USERS),
        ("bad.txt", "203.0.113.0/24\n"),
        ("ads.txt", ".ads.example\n"),
    ):
        (tmp_path / name).write_text(text)
    block = re.sub("/(etc/socksproxy|etc|var/lib/socks|var/log/socks)/", f"{tmp_path}/", block)
    file.write_text(block.replace("$2b$12$...", _HASH))
    main(["check", str(file)])
    mistakes = capsys.readouterr().err.splitlines()
    elsewhere = "no such file|Cannot find|keytab|is not a program"
    absent = [line for line in mistakes if re.search(elsewhere, line)]
    assert len(mistakes) == (len(absent) + 1 if absent else 0)  # and a line with their number


def connects(path: Path, program: Program) -> bool:
    """Whether *program*'s proxy on the Unix socket *path* grants a CONNECT."""
    with socket.create_server(("127.0.0.1", 0)) as destination, connected(path, program) as client:
        port = destination.getsockname()[1]
        client.settimeout(60)
        client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        answer = b""
        while len(answer) < 12 and (data := client.recv(100)):
            answer += data
    return answer[:4] == b"\x05\x00\x05\x00"


@pytest.mark.parametrize("number", [0, 2])  # the other one is in test_client_examples.py
def test_readme_code(number: int, tmp_path: Path, start: Callable[..., Program]) -> None:
    """The README's .tac file and its program are proxies."""
    code = blocks(README, ".. code-block:: python")[number]
    assert LISTEN in code
    path = tmp_path / "socks"
    file = tmp_path / "from_the_readme.py"  # not the name of a module that twistd imports, such as code
    file.write_text(code.replace(LISTEN, f"unix:{path}"), "utf-8")
    is_tac = "Application(" in code
    command = [*TWISTD, "--pidfile=", "-ny", str(file)] if is_tac else [sys.executable, str(file)]
    assert connects(path, start(command))


@pytest.mark.parametrize(
    ("client", "host", "port", "permitted"),
    [
        ("192.0.2.1", "example.com", 443, True),
        ("192.0.2.1", "1.1.1.1", 80, True),
        ("192.0.2.1", "1.1.1.1", 22, False),
        ("192.0.2.1", "example.com", 22, False),
        ("192.0.2.1", "10.0.0.1", 80, False),
        ("127.0.0.1", "10.0.0.1", 80, False),
        ("192.0.2.1", "169.254.169.254", 80, False),
        ("192.0.2.1", "::ffff:127.0.0.1", 80, False),
        ("127.0.0.1", "1.2.3.4", 443, False),
    ],
)
def test_policy(client: str, host: str, port: int, permitted: bool) -> None:
    """Who copies the policy is protected by it; the last line is what knowing one's listeners is for."""
    first, listeners = blocks(DOCS / "embedding.rst", ".. code-block:: python")[:2]
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(first + listeners, names)
    names["factory"].sessions.context.listeners.add("1.2.3.4", 443)
    answer = names["policy"].permits(Client(client, 5555), Command.CONNECT, Address.of(host, port))
    assert answer is permitted


@pytest.mark.parametrize(
    ("page", "number"),
    [("embedding", 2), ("authentication", 0), ("authentication-python", 0), ("authentication-python", 1)],
)
def test_portals(page: str, number: int, tmp_path: Path) -> None:
    """Who copies these lines has a factory that asks for passwords."""
    code = blocks(DOCS / f"{page}.rst", ".. code-block:: python")[number]
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_bytes(b"bob:" + new_hash(b"secret", cost=4) + b"\n")
    names: dict[str, Any] = {"__name__": "documentation"}
    assert "/etc/socks.htpasswd" in code
    exec(code.replace("/etc/socks.htpasswd", str(htpasswd)), names)
    authentication = names["factory"].sessions.context.authentication
    assert [method.name for method in authentication.methods_for(lambda: None)] == ["password"]


# What is explained.


def test_options_explained(start: Callable[..., Program]) -> None:
    """Every option can be looked up, and none that there is not."""
    program = start([*TWISTD, "socks", "--help"], {"COLUMNS": "80"})
    assert program.wait() == 0
    names = set(re.findall(r"^ +(?:-(\w), )?--([\w-]+)", program.output, re.MULTILINE))
    text = (DOCS / "options.rst").read_text("utf-8")
    directives = re.findall(r"^\.\. option:: (?:-(\w) [A-Z]+, )?--([\w-]+)", text, re.MULTILINE)
    assert len(directives) == len(set(directives))
    assert set(directives) == names


@pytest.mark.parametrize("name", ["", ".auth", ".client", ".limits", ".logs", ".net", ".policy", ".values"])
def test_public_names_documented(name: str) -> None:
    """Every public name can be looked up."""
    text = (DOCS / "api.rst").read_text("utf-8")
    found = re.findall(rf"^\.\. (?:auto\w+|interface):: socksproxy{name}\.(\w+)$", text, re.MULTILINE)
    public = import_module(f"socksproxy{name}").__all__
    assert sorted(found) == sorted(set(public) - (set(socksproxy.__all__) if name else set()))


def test_auth_types_documented(start: Callable[..., Program]) -> None:
    """Every type of --auth is in the table, and none that there is not."""
    program = start([*TWISTD, "socks", "--help-auth"])
    assert program.wait() == 0
    listed = program.output.partition("========")[2]
    types = re.findall(r"^  ([a-z]\w*)\s", listed, re.MULTILINE)
    cells = table(DOCS / "authentication.rst", "Type")
    assert types
    assert {name.partition(":")[0] for cell in cells for name in cell.split("``, ``")} == set(types)


def test_state_table(tables: ModuleType) -> None:
    """The table that a reader sees is the one that the server goes by."""
    rows = list(tables.states())[1:]
    seen: list[tuple[str, str, str]] = []
    for state, what, following in rows:
        seen.append((state.strip("`") or seen[-1][0], what, following.strip("`")))
    assert {row for row in seen if row[2]} == {
        (state.name, step.value, following.name)
        for state, steps in TRANSITIONS.items()
        for step, following in steps.items()
    }
    assert {row[0] for row in seen} == {state.name for state in State}


def test_states_explained() -> None:
    """No state of the table is left without a word on it."""
    text = (DOCS / "protocol.rst").read_text("utf-8")
    assert ".. from-the-code:: states" in text
    assert re.findall(r"^``([A-Z0-9]+)``$", text, re.MULTILINE) == [state.name for state in State]


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        (errno.ECONNREFUSED, "5"),
        (errno.ENETUNREACH, "3"),
        (errno.EHOSTUNREACH, "4"),
        (errno.ETIMEDOUT, "6"),
        (errno.EACCES, "2"),
    ],
)
def test_replies_table(number: int, reply: str, tables: ModuleType) -> None:
    """Who looks up a reply finds what caused it."""
    rows = [row for row in tables.replies() if f"``{errno.errorcode[number]}``" in row[0]]
    assert [row[1].split()[0] for row in rows] == [reply]
    assert [row[2] for row in rows] == ["91"]


def test_most_telling(tables: ModuleType) -> None:
    """The order in which replies are told is that of the code: a refusal by the host comes first."""
    assert next(row for row in tables.telling() if row[0] == "1")[1].startswith("5 ")


def test_special_addresses(tables: ModuleType) -> None:
    """Who looks up what is out of reach finds the addresses that matter most."""
    kinds = dict(list(tables.special_addresses())[1:])
    assert "``127.0.0.0/8``" in kinds["loopback"]
    assert "``169.254.169.254``" in kinds["cloud metadata"]
    assert all(kinds.values())


def test_log_fields() -> None:
    """Who reads a line of the access log finds every field of it, in its order."""
    assert table(DOCS / "logging.rst", "Field") == list(FIELDS)


def test_log_examples() -> None:
    """Who writes a parser by the examples has one for the real lines."""
    lines = blocks(DOCS / "logging.rst", ".. code-block:: none")[0].splitlines()
    for line in lines:
        assert tuple(re.findall(r" (\w+)=", line)) == FIELDS
    record = json.loads(blocks(DOCS / "logging.rst", ".. code-block:: json")[0])
    assert tuple(record) == ("time", *FIELDS)


def test_endings() -> None:
    """Every way in which a relay ends is explained."""
    told = {
        word.strip("` ") for row in table(DOCS / "logging.rst", "How it ended") for word in row.split(",")
    }
    assert {cause.value.words for cause in Cause if ": " not in cause.value.words} <= told


def test_sphinx(tmp_path: Path) -> None:
    """
    The documentation builds without a warning, and what comes from the code is in it.

    A ``:term:`` that the glossary lacks is a warning.
    """
    build("html", tmp_path)
    protocol = (tmp_path / "protocol.html").read_text("utf-8")
    assert "the first of BIND" in protocol
    assert "ECONNREFUSED" in protocol
    assert "Seconds without data after which" in (tmp_path / "configuration.html").read_text("utf-8")
    assert "169.254.169.254" in (tmp_path / "security.html").read_text("utf-8")
    api = (tmp_path / "api.html").read_text("utf-8")
    assert "InterfaceClass" not in api
    assert 'id="socksproxy.IPolicy.permits"' in api
    assert 'id="term-session"' in (tmp_path / "glossary.html").read_text("utf-8")


def test_man_pages(tmp_path: Path) -> None:
    """They have every option and every key, without links that a terminal cannot follow."""
    build("man", tmp_path)
    options = (tmp_path / "socksproxy.1").read_text("utf-8")
    keys = (tmp_path / "socksproxy.toml.5").read_text("utf-8")
    assert "\\-\\-half\\-closed\\-timeout SECONDS" in options
    assert "half\\-closed\\-timeout" in keys
    assert "Type: true or false; Default: false" in keys
    assert "<>" not in options + keys


def build(builder: str, output: Path) -> None:
    """Build the documentation; a warning fails."""
    for needed in ("sphinx", "furo", "sphinx_design"):
        pytest.importorskip(needed)
    options = ["-W", "--keep-going", "-q", "-b", builder]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(output)]
    built = subprocess.run(command, text=True, capture_output=True, timeout=300, check=False)
    assert (built.returncode, built.stderr) == (0, "")


@pytest.mark.parametrize("page", ["configuration.rst", "protocol.rst", "security.rst"])
def test_tables_in_the_source(page: str, tables: ModuleType) -> None:
    """A page can be read without a build; ``python docs/_ext/tables.py`` writes what the code has now."""
    text = (DOCS / page).read_text("utf-8")
    marks = text.count(".. from-the-code::")
    assert marks
    assert text.count(".. from-the-code::") == len(
        re.findall(r"^\.\. from-the-code:: \S+\n\n\.\. list-table::\n", text, re.MULTILINE)
    )
    assert tables.with_tables(text) == text
    without = re.sub(r"\n\.\. list-table::\n   :header-rows: 1\n\n(?:   .*\n)+", "", text)
    assert tables.with_tables(without).count(".. list-table::") == marks


def test_every_key_in_the_source() -> None:
    """Each key of the configuration file stands in its page as it is, with an example."""
    text = (DOCS / "configuration.rst").read_text("utf-8")
    keys = set(PLACES)
    for key in keys | set(RULE_KEYS) | set(USER_KEYS) | set(SET_KEYS) | set(LIMIT_KEYS) | set(PREFIX_KEYS):
        assert f"   * - ``{key}``\n" in text


def test_configuration(tables: ModuleType) -> None:
    """Every key of the configuration file is explained, in its table's section."""
    text = (DOCS / "configuration.rst").read_text("utf-8")
    section = r"^\[([a-z]+)\]\n-+\n\n.*\n\n\.\. from-the-code:: config-(\w+)$"
    sections = re.findall(section, text, re.MULTILINE)
    assert sections == [(name, name) for name in TABLES]
    for name in TABLES:
        heading, *rows = tables.TABLES[f"config-{name}"]()
        assert [row[0].strip("`") for row in rows] == list(keys_of(name))
        assert all(len(row) == len(heading) and row[1] and row[3] and row[4] and row[5] for row in rows)
    rule = list(tables.TABLES["config-rule"]())
    assert [row[0].strip("`") for row in rule[1:]] == list(RULE_KEYS)
    assert all(all(row) for row in rule)
    for name, keys in (
        ("users", USER_KEYS),
        ("groups", GROUP_KEYS),
        ("upstreams", UPSTREAM_KEYS),
        ("helpers", HELPER_KEYS),
        ("sets", SET_KEYS),
        ("sticky", STICKY_KEYS),
        ("admin", ADMIN_KEYS),
        ("admin-listener", ADMIN_LISTENER_KEYS),
    ):
        assert f".. from-the-code:: config-{name}\n" in text
        rows = list(tables.TABLES[f"config-{name}"]())
        assert [row[0].strip("`") for row in rows[1:]] == list(keys)
        assert all(map(all, rows))
    limits = list(tables.TABLES["config-limit-keys"]())
    assert [row[0].strip("`") for row in limits[1:]] == [*LIMIT_KEYS, *PREFIX_KEYS]
    assert all(row[1] and row[3] and row[4] and row[5] for row in limits)
    idle = next(row for row in tables.TABLES["config-timeouts"]() if row[0] == "``idle-timeout``")
    assert idle[1:4] == ("number", "seconds", "0")


#: Words for which there is a plainer one, and text that is not prose.
_HABITS = re.compile(
    r"\b(nobody|somebody|whoever|whomever|likewise|of whom|to whom|those that|goes on|go on with|as ever)\b"
)
_NOT_PROSE = re.compile(
    r"``[^`]*``|^(?: {4}| {8,})\S.*$|^\.\. from-the-code::.*\n\n(?:.+\n)+(?:\n(?:   .*\n)+)", re.MULTILINE
)


@pytest.mark.parametrize(
    "path",
    [*TEXTS, DOCS.parent / "CONTRIBUTING.rst", DOCS.parent / "SECURITY.rst"],
    ids=lambda path: path.stem,
)
def test_plain_english(path: Path) -> None:
    """Sentences have a noun as their subject. Lines can be read without a build."""
    text = path.read_text("utf-8")
    assert _HABITS.findall(_NOT_PROSE.sub("", text)) == [] or path.stem == "CONTRIBUTING"
    if not path.stem.startswith(("performance-", "comparison-")):
        wide = [line for line in text.splitlines() if len(line) > 110]
        assert [line for line in wide if not line.startswith("    ")] == []


def test_architecture_has_every_room() -> None:
    """The picture has the rooms in the order that ``lint-imports`` checks."""
    root = DOCS.parent
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    picture = (DOCS / "architecture.rst").read_text("utf-8").partition(".. code-block:: none")[2]
    assert re.findall(r"^    (?:[A-Z]+)? +([a-z_]+)(?:/|\.py) ", picture, re.MULTILINE) == layers


def test_architecture_names_modules() -> None:
    """Every module, class of the code and test that the page on the architecture names exists."""
    text = (DOCS / "architecture.rst").read_text("utf-8")
    root = DOCS.parent
    named = re.findall(r"``((?:[\w.-]+/)*[\w-]+(?:\.(?:py|rst|toml)|/))``", text)
    assert len(named) > 40
    absent = {
        name for name in named if not any((place / name).exists() for place in (root, root / "socksproxy"))
    }
    assert absent == set()
