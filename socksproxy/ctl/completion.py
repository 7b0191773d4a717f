"""
Completion in shells: a few lines for each shell, which ask ``socksproxy ctl complete`` for the words.
"""

from __future__ import annotations

from .command import Console, print_lines
from .outcome import CtlFailed
from .subcommands import COMMON, SUBCOMMANDS, Argument, Subcommand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Seconds that a shell waits for live words, and the most of them.
_PATIENCE, _MOST = 1.0, 200

_BASH = """\
_socksproxy() {
    local IFS=$'\\n'
    COMPREPLY=()
    [ "${COMP_WORDS[1]}" = ctl ] || {
        [ "$COMP_CWORD" -eq 1 ] && COMPREPLY=($(compgen -W 'ctl' -- "${COMP_WORDS[1]}"))
        return
    }
    local line="${COMP_LINE:0:$COMP_POINT}" words
    IFS=$' \\t\\n' read -r -a words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local word
    for word in $("${words[0]}" ctl complete -- "${words[@]:2}" 2>/dev/null); do
        COMPREPLY+=("$(printf '%q' "$word")")
    done
    # Bash takes a colon for the end of a word.
    local last="${words[-1]}"
    if [[ "$last" == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${last%"${last##*:}"}"}")
    fi
}
complete -o default -F _socksproxy socksproxy
"""

_ZSH = """\
#compdef socksproxy
_socksproxy() {
    if (( CURRENT == 2 )); then
        compadd ctl
        return
    fi
    [[ "$words[2]" == ctl ]] || { _files; return }
    local -a found
    found=("${(@f)$("$words[1]" ctl complete -- "${(@Q)words[3,CURRENT]}" 2>/dev/null)}")
    found=("${(@)found:#}")
    if (( $#found )); then
        compadd -a found
    else
        _files
    fi
}
compdef _socksproxy socksproxy
"""

_FISH = """\
function __socksproxy_words
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test "$words[2]" = ctl; or return
    set -l given $words[3..-1] (commandline -ct)
    $words[1] ctl complete -- $given 2>/dev/null
end
complete -c socksproxy -n '__fish_use_subcommand' -a ctl
complete -c socksproxy -n '__fish_seen_subcommand_from ctl' -f -a '(__socksproxy_words)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(console: Console) -> None:
    """Print the lines for a shell."""
    print_lines([SCRIPTS[console.options.shell].rstrip("\n")])


def words(console: Console) -> None:
    """Print the words that may come next; the last of the given ones is begun, and may be empty."""
    given = console.options.words or [""]
    begun = given[-1]
    found = (word for word in following(given[:-1], console) if word.startswith(begun))
    print_lines(list(dict.fromkeys(word for word in found if word.isprintable()))[:_MOST])


def following(before: Sequence[str], console: Console) -> Iterator[str]:
    """The words that may follow the words *before*."""
    subcommand: Subcommand | None = None
    waiting: Argument | None = None
    places = 0
    for word in before:
        if waiting is not None:
            _take(waiting, word, console)
            waiting = None
        elif word.startswith("-"):
            waiting = _option_with_value(word, subcommand)
        elif subcommand is None:
            subcommand = next((each for each in SUBCOMMANDS if each.name == word), None)
            if subcommand is None:
                return
        else:
            places += 1
    if waiting is not None:
        yield from _values(waiting, console)
        return
    if subcommand is None:
        yield from (each.name for each in SUBCOMMANDS)
        yield from _options(COMMON)
        return
    standing = [each for each in subcommand.arguments if not each.is_option]
    if standing:
        here = standing[min(places, len(standing) - 1)]
        if places < len(standing) or here.more.get("nargs") == "*":
            yield from _values(here, console)
    yield from _options(subcommand.arguments)
    if subcommand.level:
        yield from _options(COMMON)


def _take(argument: Argument, word: str, console: Console) -> None:
    """The server that the line names is the one to ask."""
    name = argument.names[-1].removeprefix("--").replace("-", "_")
    if argument in COMMON and name != "timeout":
        setattr(console.options, name, word)


def _options(arguments: Sequence[Argument]) -> Iterator[str]:
    return (argument.names[-1] for argument in arguments if argument.is_option)


def _option_with_value(word: str, subcommand: Subcommand | None) -> Argument | None:
    """The option *word*, where it takes a value; None: it takes none, or there is no such option."""
    arguments = (*COMMON, *(() if subcommand is None else subcommand.arguments))
    for argument in arguments:
        if word in argument.names and argument.more.get("action") is None:
            return argument
    return None


def _values(argument: Argument, console: Console) -> Iterator[str]:
    yield from argument.more.get("choices", ())
    if argument.live is None:
        return
    console.options.timeout = _PATIENCE
    try:
        yield from _LIVE[argument.live](console)
    except (CtlFailed, KeyError, TypeError):
        return  # a shell has no place for complaints


def _users(console: Console) -> Iterator[str]:
    return (row["user"] for row in console.client.get("/v1/users", {"limit": _MOST})["users"])


def _sessions(console: Console) -> Iterator[str]:
    return (row["id"] for row in console.client.get("/v1/sessions", {"limit": _MOST})["sessions"])


def _listeners(console: Console) -> Iterator[str]:
    rows = console.client.get("/v1/listeners")["listeners"]
    return (row["name"] or row["address"] for row in rows)


def _upstreams(console: Console) -> Iterator[str]:
    return (row["name"] for row in console.client.get("/v1/upstreams")["upstreams"])


def _lockouts(console: Console) -> Iterator[str]:
    return (row["address"] for row in console.client.get("/v1/lockouts")["lockouts"])


def _nodes(console: Console) -> Iterator[str]:
    return (row["name"] for row in console.client.get("/v1/nodes")["nodes"])


def _waits(console: Console) -> Iterator[str]:
    return iter(("ready", "drained", "generation:"))


_LIVE: dict[str, Callable[[Console], Iterator[str]]] = {
    "users": _users,
    "sessions": _sessions,
    "listeners": _listeners,
    "upstreams": _upstreams,
    "lockouts": _lockouts,
    "nodes": _nodes,
    "waits": _waits,
}
