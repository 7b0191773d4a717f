"""What a configuration file says is what options say, and options go before it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from socksproxy.app import Options
from socksproxy.config import command_line as options_module
from socksproxy.config.options import BY_NAME, OPTIONS, PLACES, TABLES, keys_of, settings_of
from socksproxy.settings import ServerSettings
from socksproxy.workers.descriptor_passing import file_of
from socksproxy.workers.worker import make_worker_service

from ..support.processes import Program
from ..support.workers import orders

ROOT = Path(__file__).parents[2]

#: Options that are no setting.
NO_KEYS = {"node", "help", "help-auth", "help-auth-type", "version"}
NO_KEYS |= {name for name in BY_NAME if name.startswith("config")}

#: Settings that no option has.
NO_OPTIONS = {"quota-file", "time-zone"}

#: Of each key: what the file says, the same said by options, and options that say something else.
SAID: dict[str, tuple[str, list[str], list[str]]] = {
    "listen": (
        '["tcp:1:interface=127.0.0.1", "unix:/nonexistent/a"]',
        ["--listen=tcp:1:interface=127.0.0.1", "--listen=unix:/nonexistent/a"],
        ["--listen=unix:/nonexistent/b"],
    ),
    "interface": ('"127.0.0.2"', ["--interface=127.0.0.2"], ["-i", "127.0.0.3"]),
    "port": ("1081", ["--port=1081"], ["-p", "1082"]),
    "open": ("true", ["--open"], ["--open"]),
    "advertise": ('["192.0.2.1", "::1"]', ["--advertise=192.0.2.1", "--advertise=::1"], ["--advertise=::2"]),
    "proxy-from": (
        '["127.0.0.1", "10.0.0.0/8"]',
        ["--proxy-from=127.0.0.1", "--proxy-from=10.0.0.0/8"],
        ["--proxy-from=::1"],
    ),
    "auth": ('["memory:a:b", "anonymous"]', ["--auth=memory:a:b", "--auth=anonymous"], ["--auth=memory:a:b"]),
    "auth-timeout": ("2.5", ["--auth-timeout=2.5"], ["--auth-timeout=7"]),
    "auth-cache": ("0", ["--auth=memory:a:b", "--auth-cache=0"], ["--auth=memory:a:b", "--auth-cache=7"]),
    "auth-failures": ("0", ["--auth-failures=0"], ["--auth-failures=7"]),
    "socks4-userid": ('"trust"', ["--socks4-userid=trust"], ["--socks4-userid=trust"]),
    "resolver": ('"dns:127.0.0.1"', ["--resolver=dns:127.0.0.1"], ["--resolver=system"]),
    "prefer": ('"ipv4"', ["--prefer=ipv4"], ["--prefer=ipv6"]),
    "no-resolve-commands": ("true", ["--no-resolve-commands"], ["--no-resolve-commands"]),
    "outgoing": ('["127.0.0.1", "::1"]', ["--outgoing=127.0.0.1", "--outgoing=::1"], ["--outgoing=::1"]),
    "via": ('"direct"', ["--via=direct"], ["--via=direct"]),
    "bind-ports": ("40000", ["--bind-ports=40000"], ["--bind-ports=40000-40999"]),
    "bind-address": ('["127.0.0.1"]', ["--bind-address=127.0.0.1"], ["--bind-address=::1"]),
    "bind-timeout": ("2.5", ["--bind-timeout=2.5"], ["--bind-timeout=120"]),
    "bind-any-peer": ("true", ["--bind-any-peer"], ["--bind-any-peer"]),
    "bind-check-port": ("true", ["--bind-check-port"], ["--bind-check-port"]),
    "udp-ports": ('"40000-40999"', ["--udp-ports=40000-40999"], ["--udp-ports=40000"]),
    "udp-port": ("1080", ["--udp-port=1080"], ["--udp-port=1081"]),
    "udp-filter": (
        '"endpoint-independent"',
        ["--udp-filter=endpoint-independent"],
        ["--udp-filter=address-dependent"],
    ),
    "udp-relatch": ("true", ["--udp-relatch"], ["--udp-relatch"]),
    "udp-idle-timeout": ("0", ["--udp-idle-timeout=0"], ["--udp-idle-timeout=120"]),
    "udp-grace": ("2.5", ["--udp-grace=2.5"], ["--udp-grace=0"]),
    "log": ('"a.log"', ["--log=a.log"], ["-l", "b.log"]),
    "log-format": ('"json"', ["--log-format=json"], ["--log-format=text"]),
    "log-probes": ("true", ["--log-probes"], ["--log-probes"]),
    "server-log": ('"s.log"', ["--server-log=s.log"], ["--server-log=t.log"]),
    "server-log-format": ('"json"', ["--server-log-format=json"], ["--server-log-format=text"]),
    "workers": ("2", ["--workers=2"], ["--workers=1"]),
    "drain": ("2.5", ["--drain=2.5"], ["--drain=0"]),
    "busy-poll": ("0", ["--busy-poll=0"], ["--busy-poll=50"]),
    "max-sessions": ("2", ["--max-sessions=2"], ["--max-sessions=3"]),
    "max-sessions-per-client": ("2", ["--max-sessions-per-client=2"], ["--max-sessions-per-client=3"]),
    "max-binds-per-client": ("2", ["--max-binds-per-client=2"], ["--max-binds-per-client=32"]),
    "max-associations-per-client": (
        "2",
        ["--max-associations-per-client=2"],
        ["--max-associations-per-client=4096"],
    ),
    "handshake-timeout": ("2.5", ["--handshake-timeout=2.5"], ["--handshake-timeout=10"]),
    "connect-timeout": ("2.5", ["--connect-timeout=2.5"], ["--connect-timeout=30"]),
    "idle-timeout": ("2.5", ["--idle-timeout=2.5"], ["--idle-timeout=0"]),
    "half-closed-timeout": ("2.5", ["--half-closed-timeout=2.5"], ["--half-closed-timeout=300"]),
    "keepalive": ("0", ["--keepalive=0"], ["--keepalive=60"]),
    "keepalive-interval": ("7", ["--keepalive-interval=7"], ["--keepalive-interval=8"]),
    "tcp-user-timeout": ("9", ["--tcp-user-timeout=9"], ["--tcp-user-timeout=300"]),
}

#: What else has to be said for a key to make sense, or a difference.
BESIDES = {
    "log-format": ["--log=a.log"],
    "server-log-format": ["--server-log=s.log"],
    "socks4-userid": ["--auth=memory:a:b"],
    "auth-cache": [],
    "proxy-from": ["--listen=haproxy:tcp:1:interface=127.0.0.1"],
}

FLAGS = ["open", "log-probes", "no-resolve-commands", "bind-any-peer", "bind-check-port", "udp-relatch"]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are made here; every address is this machine's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options_module, "is_local", lambda host: True)


def parsed(*arguments: str, config: str | None = None) -> Options:
    from twisted.internet import reactor

    # Several processes' listeners are opened with the real one.
    options = Options(reactor if any("workers" in word for word in (*arguments, config or "")) else None)
    options._reactor = options._reactor or MemoryReactorClock()
    if config is not None:
        Path("socks.toml").write_text(config, "utf-8")
        arguments = ("--config=socks.toml", *arguments)
    options.parseOptions(arguments)
    return options


def meant(options: Options) -> dict[str, Any]:
    """What *options* come to, in a form that can be compared."""
    plan, settings = options.plan, options.plan.settings
    portal, log, resolver = settings.portal, plan.access_log, cast(Any, settings.resolver)
    checkers = [type(checker).__name__ for checker in options["credCheckers"]]
    found: dict[str, Any] = {
        name: options[name]
        for name in (
            "outgoing",
            "advertise",
            "proxy-from",
            "listen",
            "open",
            "no-resolve-commands",
            "log-probes",
        )
    }
    fields = ("timeouts", "limits", "bind", "udp", "auth", "via", "prefer", "busy_poll")
    found |= {name: getattr(settings, name) for name in fields}
    found |= {name: getattr(plan, name) for name in ("drain", "workers", "guarded")}
    found["socks4-userid"] = options["socks4-userid"]
    found["listeners"] = [listener.description for listener in plan.listeners]
    found["checkers"] = checkers
    found["portal"] = portal and sorted(map(str, portal.listCredentialsInterfaces()))
    found["cache"] = portal and options["auth-cache"]
    found["log"] = log and (log.path, log.format)
    found["server log"] = plan.server_log and (plan.server_log.path, plan.server_log.format)
    found["resolver"] = resolver and resolver.servers
    found["flags"] = {name: bool(found.pop(name)) for name in ("open", "no-resolve-commands", "log-probes")}
    return found


def file(key: str, value: str) -> str:
    return f"[{PLACES[key]}]\n{key} = {value}\n"


def test_a_key_for_each_option() -> None:
    """An option without a key, or a key without an option, is forgotten somewhere."""
    names = {name.rstrip("=") for name in Options().longOpt}
    assert set(PLACES) - NO_OPTIONS == names - NO_KEYS
    assert sum(len(keys_of(table)) for table in TABLES) == len(PLACES)


def test_each_key_is_tried() -> None:
    """The tables above are whole."""
    assert set(SAID) == set(PLACES) - NO_OPTIONS
    assert set(FLAGS) == {name for name, (value, _, _) in SAID.items() if value == "true"}


@pytest.mark.parametrize("key", SAID)
def test_the_same_as_the_option(key: str) -> None:
    """A key means what its option means, which is not what nothing means."""
    value, same, _ = SAID[key]
    besides = [*BESIDES.get(key, ()), *(word for word in same if not word.startswith(f"--{key}"))]
    by_file = meant(parsed(*besides, config=file(key, value)))
    assert by_file == meant(parsed(*besides, *(word for word in same if word.startswith(f"--{key}"))))
    assert by_file != meant(parsed(*besides))


@pytest.mark.parametrize("key", SAID)
def test_options_win(key: str) -> None:
    """What the command line says goes before what the file says, however it spells it; lists are replaced."""
    value, same, other = SAID[key]
    besides = BESIDES.get(key, [])
    config = file(key, "false" if key in FLAGS else value)
    both = meant(parsed(*besides, *other, config=config))
    assert both == meant(parsed(*besides, *other))
    if other != same:
        assert both != meant(parsed(*besides, *same))


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        ('[listeners]\nlisten = ["unix:/nonexistent/a"]', ["-p", "1081"]),
        ('[listeners]\nlisten = ["unix:/nonexistent/a"]', ["--interface", "127.0.0.2"]),
        ('[listeners]\nport = 1\ninterface = "127.0.0.2"', ["--listen", "unix:/nonexistent/a"]),
        ("[udp]\nudp-port = 1", ["--udp-ports", "2-3"]),
        ('[udp]\nudp-ports = "2-3"', ["--udp-port", "1"]),
    ],
)
def test_options_win_over_what_excludes_them(config: str, arguments: list[str]) -> None:
    """What cannot be said beside an option is not said by the file, either."""
    assert meant(parsed(*arguments, config=config)) == meant(parsed(*arguments))


def test_abbreviated_options_win() -> None:
    """Twisted takes the beginning of an option's name for all of it."""
    assert parsed("--idle", "7", config="[timeouts]\nidle-timeout = 5").plan.settings.timeouts.idle == 7


def test_no_is_as_if_nothing_were_said() -> None:
    """A flag that is false, an empty list and an empty file are no settings."""
    nothing = meant(parsed())
    assert meant(parsed(config="")) == nothing
    assert (
        meant(parsed(config="[listeners]\nopen = false\nlisten = []\n[authentication]\nauth = []")) == nothing
    )


def test_wrong_although_another_counts() -> None:
    """A file has to be right as a whole, whatever options say."""
    with pytest.raises(UsageError, match=r"^socks\.toml:2: \[timeouts\] idle-timeout = -1: not a number"):
        parsed("--idle-timeout=7", config="[timeouts]\nidle-timeout = -1")


def test_both_wrong() -> None:
    """What is wrong with the options comes first."""
    with pytest.raises(UsageError) as caught:
        parsed("--drain=x", config="[timeouts]\nidle-timeout = -1\n[log]\nlog = 'x'")
    first, second = str(caught.value).splitlines()
    assert first == "--drain x: not a number of seconds, or 0 for none"
    assert second.startswith("socks.toml:2: [timeouts]")
    assert not Path("x").exists()


def test_no_file() -> None:
    """One line says so."""
    with pytest.raises(UsageError, match=r"^--config nowhere: no such file or directory$"):
        parsed("--config=nowhere")


def test_no_end() -> None:
    """A file that never ends is not read."""
    with pytest.raises(UsageError, match=r"^--config /dev/zero: is not a regular file$"):
        parsed("--config=/dev/zero")


@pytest.mark.parametrize("missing", ["tomllib" if sys.version_info >= (3, 11) else "tomli"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages one line says which are needed."""
    parts = [name for name in sys.modules if name.startswith("socksproxy.config.")]
    for name in set(parts) - {"socksproxy.config.command_line"}:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"twisted-socksproxy\[config\]") as caught:
        parsed(config="")
    assert "\n" not in str(caught.value)
    assert missing in str(caught.value)


@pytest.mark.parametrize("key", [key for key in SAID if key not in ("auth", "log")])
def test_examples(key: str) -> None:
    """The examples of the documentation are right."""
    options = parsed(*BESIDES.get(key, []), config=file(key, BY_NAME[key].example))
    assert options.config is not None
    assert options._configured is not None
    assert options._configured.used == {key}


# The table.

_ROW = """
OPTIONS += (
    Option(
        name="udp-destinations",
        help="Destinations that an association remembers.",
        table="udp",
        types=WHOLE,
        parse=count(),
        default="1024",
        unit="destinations",
        example="64",
        completion=CompleteList(["64", "1024"]),
        field="udp.destinations",
    ),
)
"""
_AFTER_ITS_ROW = """
import importlib.util, json, runpy, sys
from pathlib import Path

spec = importlib.util.find_spec("socksproxy.config.options")
before, mark, after = spec.loader.get_source(spec.name).partition("#: All options by their names.")
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
exec(compile(before + sys.argv[1] + mark + after, spec.origin, "exec"), vars(module))

from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from socksproxy.app import Options, makeService

def destinations(*arguments):
    options = Options(MemoryReactorClock())
    options.parseOptions(arguments)
    return makeService(options).factory.settings.udp.destinations

def wrong(text):
    Path("wrong.toml").write_text(text)
    try:
        destinations("--config=wrong.toml")
    except UsageError as problem:
        return str(problem)

Path("right.toml").write_text("[udp]\\nudp-destinations = 64\\n")
tables = runpy.run_path(sys.argv[2])
print(json.dumps({
    "meanings": [destinations(), destinations("--udp-destinations=7"), destinations("--config=right.toml")],
    "over the file": destinations("--config=right.toml", "--udp-destinations=7"),
    "wrong value": wrong("[udp]\\nudp-destinations = 0"),
    "wrong type": wrong("[udp]\\nudp-destinations = true"),
    "misspelled": wrong("[udp]\\nudp-destination = 1"),
    "help": Options().getUsage(80),
    "completion": "udp-destinations" in Options.compData.optActions,
    "options.rst": [row for row in tables["options"]() if "``--udp-destinations``" in row],
    "configuration.rst": [row for row in tables["config_keys"]("udp") if "``udp-destinations``" in row],
    "README.rst": tables["with_help"](Path(sys.argv[3]).read_text()),
}))
"""


def test_a_new_row(tmp_path: Path) -> None:
    """An option is its row and its field: everything else follows."""
    command = [
        sys.executable,
        "-c",
        _AFTER_ITS_ROW,
        _ROW,
        str(ROOT / "docs/_ext/tables.py"),
        str(ROOT / "README.rst"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["meanings"] == [1024, 7, 64]
    assert found["over the file"] == 7
    assert found["wrong value"] == "wrong.toml:2: [udp] udp-destinations = 0: not a whole number above 0"
    assert found["wrong type"] == "wrong.toml:2: [udp] udp-destinations = true: not a whole number"
    assert found["misspelled"].endswith("no such key; did you mean udp-destinations?")
    assert "--udp-destinations=" in found["help"]
    assert "[default: 1024]" in found["help"]
    assert found["completion"] is True
    meaning = "Destinations that an association remembers."
    assert found["options.rst"] == [["``--udp-destinations``", "1024", "``[udp]``", meaning]]
    key = ["``udp-destinations``", "whole number", "destinations", "1024", "``64``", meaning]
    assert found["configuration.rst"] == [key]
    assert "--udp-destinations=" in found["README.rst"]


def test_defaults_are_those_of_the_fields() -> None:
    """A program that gives no settings and an operator who gives no options have the same server."""
    groups = settings_of({option.name: option.default_meaning for option in OPTIONS})
    for group, fields in groups.items():
        settings = attrgetter(group)(ServerSettings()) if group else ServerSettings()
        assert fields == {name: getattr(settings, name) for name in fields}


# Several processes.


def test_worker_takes_what_the_supervisor_has_read(tmp_path: Path) -> None:
    """A worker does not read the file, which may be another one by now."""
    descriptor = file_of(b"[timeouts]\nidle-timeout = 7\n[[rule]]\nname = 'web'\nallow = true\n")
    try:
        told = orders(arguments=["--config=nowhere"], listeners=[[]], log=None, counts=None)
        service, again = (
            make_worker_service(told._replace(config=os.dup(descriptor)), MemoryReactorClock())
            for _ in range(2)
        )
    finally:
        os.close(descriptor)
    assert service.factory.sessions.context.timeouts.idle == 7
    assert again.factory.sessions.context.timeouts.idle == 7
    policy: Any = again.factory.sessions.context.policy
    assert [rule.name for rule in policy.rules] == ["web"]


def test_worker_restarted_after_an_edit(twistd: Callable[..., Program], tmp_path: Path) -> None:
    """A worker in the place of one that died serves as the others do, whatever the file says by now."""
    config = tmp_path / "socks.toml"
    config.write_text("[listeners]\nport = 0\n[workers]\nworkers = 2\n", "utf-8")
    program = twistd("socks", "--config", str(config))
    program.wait_for("listening on tcp:127.0.0.1:")
    first = program.wait_for(r"worker 1 \(process (\d+)\) accepts clients")[1]
    config.write_text("this is no configuration", "utf-8")
    os.kill(int(first), signal.SIGKILL)
    second = program.wait_for(rf"worker 1 \(process (?!{first}\))(\d+)\) accepts clients")[1]
    assert second != first
    assert program.stop() == -signal.SIGTERM
    assert not re.search("no configuration|socks.toml:1", program.output)
