"""
The command line: from its arguments to the exit status.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter, Namespace
from importlib import import_module

from .connection import USUAL_TIMEOUT, AdminClient, ClientCredentials, find, token_in
from .fleet import FleetAnswers, ask_all, client_of
from .outcome import DONE, IN_PART, MEANINGS, REFUSED, USAGE, CtlFailed
from .subcommands import COMMON, SUBCOMMANDS, Argument, Subcommand
from .text import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

#: The options that name a server, in :data:`~socksproxy.ctl.subcommands.COMMON`.
_ASKING = ("server", "node", "token_file", "ca", "certificate", "key", "timeout")

#: Seconds for an answer, where one of many nodes may not answer.
_ONE_OF_ALL = 10.0

#: Ended by Ctrl-C, as shells have it.
_INTERRUPTED = 130

_DESCRIPTION = """
Asks a server that runs, and changes what it does, over its admin socket. The socket is that of --server or of
the variable SOCKSPROXY_ADMIN, or is found where servers usually have it. """


class Console:
    """
    What a subcommand has to work with.

    :param options: the arguments.
    :ivar status: the exit status when the subcommand returns.
    """

    def __init__(self, options: Namespace) -> None:
        self.options = options
        self.status = DONE
        self._client: AdminClient | None = None
        self._noted: set[str] = set()

    @property
    def client(self) -> AdminClient:
        """Asks the server; raises :class:`CtlFailed` when there is none."""
        if self._client is None:
            self._client = self.reached()
        return self._client

    def reached(self, until: float | None = None) -> AdminClient:
        """
        What asks the server.

        :param until: when the time is over for all that it asks; None: each answer has its own time.
        :raises CtlFailed: when there is no server.
        """
        options = self.options
        token = None if options.token_file is None else token_in(options.token_file)
        credentials = ClientCredentials(token, options.ca, options.certificate, options.key)
        each = options.timeout is not None and until is None
        timeout = options.timeout if each else USUAL_TIMEOUT
        client = AdminClient(find(options.server, os.environ), credentials, timeout, until)
        return client if options.node is None else client_of(client, options.node)

    def ask_all(self, ask: Callable[[AdminClient], Any]) -> FleetAnswers:
        """
        Ask all nodes.

        :param ask: asks one of them.
        :raises CtlFailed: when there is no server that knows them.
        """
        if self.options.node is not None:
            raise CtlFailed("give either --node or --all-nodes", USAGE)
        if self.options.timeout is None:
            self.client.timeout = _ONE_OF_ALL
        return ask_all(self.client, ask)

    @property
    def width(self) -> int | None:
        """The columns of the terminal; None: the output is not one."""
        return _terminal_width(sys.stdout)

    def tell(self, answer: Any, lines: Iterable[str]) -> None:
        """Print the *answer* of the server: as JSON, where it is asked for, or as *lines* for people."""
        print_lines([json.dumps(answer, ensure_ascii=True)] if self.options.json else lines)
        self.note_missing(answer)

    def note_missing(self, answer: Any) -> None:
        """Say so when workers have not answered."""
        missing = answer.get("missing") if isinstance(answer, dict) else None
        if missing:
            self.note(f"no answer from the workers {', '.join(map(str, missing))}")
            self.status = IN_PART

    def note_silent(self, gathered: FleetAnswers) -> None:
        """Say so when nodes have not answered."""
        for note in gathered.notes:
            if note not in self._noted:
                self.note(note)
        self._noted.update(gathered.notes)
        self.status = max(self.status, gathered.status)

    def note(self, words: str) -> None:
        """Tell the operator *words* beside the output."""
        print(f"socksproxy ctl: {escaped(words)}", file=sys.stderr)


def print_lines(lines: Iterable[str]) -> None:
    """Print *lines*, at once."""
    for line in lines:
        print(line)
    sys.stdout.flush()


class _Parser(ArgumentParser):
    """The usual one; nothing in an argument does anything to the terminal."""

    def error(self, message: str) -> NoReturn:
        """See :meth:`argparse.ArgumentParser.error`."""
        super().error(escaped(message))


class _Once(Action):
    """
    Takes the value of an option, which an operator gives once.

    :param given: the options that have a value already.
    """

    def __init__(self, *names: Any, given: set[str], **more: Any) -> None:
        super().__init__(*names, **more)
        self._given = given

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """See :class:`argparse.Action`."""
        if self.dest in self._given:
            parser.error(f"{option_string} is given twice")
        self._given.add(self.dest)
        setattr(namespace, self.dest, values)


class _Formatter(HelpFormatter):
    """The usual one, without :mod:`shutil`, which it would import for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_terminal_width(sys.stdout) or 80)


def _terminal_width(stream: Any) -> int | None:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return None


def parsed(arguments: Sequence[str]) -> Namespace:
    """
    The options of *arguments*. One subcommand has its own parser alone: all of them take long.

    :raises SystemExit: when they make no sense, or ask for help.
    """
    named = next((each for each in SUBCOMMANDS if arguments[:1] == [each.name]), None)
    if named is not None:
        return _parser_of(named, _Parser(f"socksproxy ctl {named.name}", **_how(named)), set()).parse_args(
            arguments[1:]
        )
    return parser().parse_args(arguments)


def parser() -> ArgumentParser:
    """The parser of all subcommands."""
    statuses = "; ".join(f"{status} {meaning}" for status, meaning in MEANINGS.items())
    given: set[str] = set()
    made = _Parser(
        "socksproxy ctl",
        description=_DESCRIPTION,
        epilog=f"Exit statuses: {statuses}.",
        formatter_class=_Formatter,
    )
    _add(made, COMMON, given)
    commands = made.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for subcommand in SUBCOMMANDS:
        one = commands.add_parser(subcommand.name, help=subcommand.help, **_how(subcommand))
        _parser_of(subcommand, one, given, default=SUPPRESS)
    return made


def _how(subcommand: Subcommand) -> dict[str, Any]:
    return {"description": f"{subcommand.help}.", "formatter_class": _Formatter}


def _parser_of(subcommand: Subcommand, made: ArgumentParser, given: set[str], **more: Any) -> ArgumentParser:
    """The parser *made*, with all that the subcommand has."""
    _add(made, subcommand.arguments, given)
    if subcommand.level:
        _add(made, COMMON, given, **more)
    elif not more:
        made.set_defaults(**dict.fromkeys(_ASKING))
    made.set_defaults(subcommand=subcommand)
    return made


def _add(made: ArgumentParser, arguments: Sequence[Argument], given: set[str], **more: Any) -> None:
    for argument in arguments:
        once: dict[str, Any] = (
            {} if "action" in argument.more or not argument.is_option else {"action": _Once, "given": given}
        )
        made.add_argument(*argument.names, help=argument.help, **argument.more, **once, **more)


def main(arguments: Sequence[str]) -> int:
    """
    Do what *arguments*, those behind ``ctl``, say.

    :returns: the exit status.
    :raises SystemExit: (with status 2) when the arguments make no sense.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = parsed(arguments)
    console = Console(options)
    try:
        _work(options.subcommand)(console)
        sys.stdout.flush()
    except CtlFailed as problem:
        for line in (*problem.reasons, str(problem)):
            console.note(line)
        return problem.status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # A reader such as "head" has read enough.
        _print_nowhere()
    except OSError as problem:
        _print_nowhere()
        console.note(f"the output cannot be written: {problem.strerror}")
        return REFUSED
    except KeyError as problem:
        console.note(f"the answer has no {problem}: the server is of another version")
        return REFUSED
    return console.status


def _print_nowhere() -> None:
    """Have what is not written yet go nowhere; it would fail again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _work(subcommand: Subcommand) -> Any:
    module, _, name = subcommand.work.partition(":")
    return getattr(import_module(f".{module}", __package__), name)
