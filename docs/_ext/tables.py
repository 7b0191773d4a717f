"""
What the documentation takes from the code: tables of plain text.

``python docs/_ext/tables.py`` writes them into the pages, behind each ``.. from-the-code:: NAME``, so that
a page can be read without a build. A test compares them. Sphinx is not needed.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import cmp_to_key, partial
from pathlib import Path
from typing import Any, get_type_hints

import attrs

from socksproxy import errors
from socksproxy.admin.settings import AdminListener, AdminSettings
from socksproxy.app import Options
from socksproxy.auth.directory import GroupRecord, UserRecord
from socksproxy.config import (
    admin,
    helpers,
    limits,
    metrics,
    pools,
    records,
    rules,
    sets,
    shared,
    sticky,
    upstreams,
    users,
)
from socksproxy.config.options import (
    FLAG,
    NUMBER,
    OPTIONS,
    TABLES as FILE_TABLES,
    TEXT,
    TEXTS,
    WHOLE,
    WHOLE_OR_TEXT,
    Option,
    keys_of,
)
from socksproxy.config.readers import Key
from socksproxy.ctl.outcome import MEANINGS
from socksproxy.ctl.subcommands import COMMON, SUBCOMMANDS, Argument
from socksproxy.limits import Limits, Rate, ServerLimits
from socksproxy.metrics.table import METRICS
from socksproxy.negotiation import TRANSITIONS
from socksproxy.net.special_addresses import _SPECIAL, Special
from socksproxy.policy.rules import Rule
from socksproxy.values.helpers import HelperSettings
from socksproxy.values.limits import Fallback
from socksproxy.values.metrics import MetricsSettings
from socksproxy.values.pools import UpstreamPool
from socksproxy.values.records import RecordSettings
from socksproxy.values.shared import NodeSettings, SharedSettings
from socksproxy.values.sticky import StickySettings
from socksproxy.values.upstreams import Upstream
from socksproxy.wire.words import Command, Reply

Row = tuple[str, ...]


def states() -> Iterator[Row]:
    """State, what happens in it, and the state that follows: the transition table."""
    yield ("State", "What happens", "Next state")
    for state, steps in TRANSITIONS.items():
        if not steps:
            yield (f"``{state.name}``", "(the conversation is over)", "")
        for number, (step, following) in enumerate(steps.items()):
            yield (f"``{state.name}``" if number == 0 else "", step.value, f"``{following.name}``")


def replies() -> Iterator[Row]:
    """Why a request fails, and the code that tells the client of each version."""
    yield ("What happened", "SOCKS5", "SOCKS4")
    for kind in (
        errors.NotAllowed,
        errors.NameNotFound,
        errors.CommandNotSupported,
        errors.ConnectTimedOut,
        errors.NoFreePort,
        errors.TooManyBinds,
    ):
        yield (_first_line(kind.__doc__), *_codes(kind.reply))
    for number in sorted(errno.errorcode):
        reply = errors.reply_for(OSError(number, ""))
        if reply is not Reply.GENERAL_FAILURE:
            yield (f"{os.strerror(number)} (``{errno.errorcode[number]}``)", *_codes(reply))
    yield ("Anything else.", *_codes(Reply.GENERAL_FAILURE))


def telling() -> Iterator[Row]:
    """The replies for attempts that failed, the most telling one first."""
    yield ("Rank", "Reply of an attempt")
    failures = [reply for reply in Reply if reply not in (Reply.SUCCEEDED, Reply.COMMAND_NOT_SUPPORTED)]
    failures.sort(key=cmp_to_key(_by_telling))
    for rank, reply in enumerate(failures, 1):
        yield (str(rank), f"{reply.value} ({_words(reply)})")


def special_addresses() -> Iterator[Row]:
    """Which networks are special, and as what."""
    yield ("Kind", "Networks")
    networks: dict[Special, list[str]] = {kind: [] for kind in Special}
    for kind, members in _SPECIAL:
        networks[kind] += [
            f"``{str(network).removesuffix('/32').removesuffix('/128')}``" for network in members
        ]
    for kind, texts in networks.items():
        yield (kind.value, ", ".join(texts))


def config_keys(name: str) -> Iterator[Row]:
    """The keys of a table of the configuration file."""
    yield ("Key", "Type", "Unit", "Default", "Example", "Meaning")
    for key, option in keys_of(name).items():
        kind, example = _TYPES[option.types], f"``{option.example}``"
        yield (f"``{key}``", kind, option.unit, _default_of(option), example, _plainly(option.help))


def options() -> Iterator[Row]:
    """All options of the command line."""
    yield ("Option", "Default", "Table of the file", "Meaning")
    for option in OPTIONS:
        if option.on_command_line:
            short = "" if option.short is None else f"``-{option.short}``, "
            table = f"``[{option.table}]``" if option.table else "none"
            yield (f"{short}``--{option.name}``", _default_of(option), table, _plainly(option.help))


def ctl_subcommands() -> Iterator[Row]:
    """All that ``socksproxy ctl`` can do."""
    yield ("Subcommand", "Level", "What it does")
    for each in SUBCOMMANDS:
        standing = " ".join(_standing(argument) for argument in each.arguments if not argument.is_option)
        level = each.level or "none"
        yield (f"``{each.name} {standing}".rstrip() + "``", level, f"{each.help[0].upper()}{each.help[1:]}.")


def ctl_options() -> Iterator[Row]:
    """The options of subcommands; those that several have the same meaning in are one row."""
    yield ("Option", "Subcommands", "Meaning")
    rows: dict[tuple[str, str], list[str]] = {}
    for each in SUBCOMMANDS:
        for argument in each.arguments:
            if argument.is_option:
                names = ", ".join(f"``{_with_value(name, argument)}``" for name in argument.names)
                rows.setdefault((names, argument.help), []).append(f"``{each.name}``")
    for argument in COMMON:
        names = ", ".join(f"``{_with_value(name, argument)}``" for name in argument.names)
        rows[names, argument.help] = ["all"]
    for (names, meaning), subcommands in rows.items():
        yield (names, ", ".join(subcommands), f"{meaning[0].upper()}{meaning[1:]}.")


def ctl_statuses() -> Iterator[Row]:
    """The exit statuses of ``socksproxy ctl``."""
    yield ("Status", "Meaning")
    for status, meaning in MEANINGS.items():
        yield (str(status), f"{meaning[0].upper()}{meaning[1:]}.")


def _standing(argument: Argument) -> str:
    """An argument without an option, as a usage line has it."""
    text = argument.more.get("metavar") or "|".join(argument.more["choices"])
    many = argument.more.get("nargs")
    return {"?": f"[{text}]", "*": f"[{text} ...]"}.get(many, text)


def _with_value(name: str, argument: Argument) -> str:
    value = argument.more.get("metavar") or "|".join(argument.more.get("choices", ()))
    return f"{name} {value}".rstrip()


def _default_of(option: Option) -> str:
    if option.flag:
        return "false"
    return "``[]``" if option.repeatable else option.default or option.otherwise or "none"


def config_limits() -> Iterator[Row]:
    """The keys of limits in the configuration file."""
    yield ("Key", "Type", "Unit", "Default", "Example", "Meaning")
    for kind, keys in ((Limits, limits.LIMIT_KEYS), (ServerLimits, limits.PREFIX_KEYS)):
        meanings, kinds = _meanings(kind), get_type_hints(kind)
        for key, known in keys.items():
            name = key.replace("-", "_")
            default = next(field for field in attrs.fields(kind) if field.name == name).default
            shown = "none" if default is None else str(default)
            type_ = _LIMIT_TYPES.get(key) or _LIMIT_TYPES[kinds[name]]
            yield (f"``{key}``", type_, known.unit, shown, f"``{known.example}``", meanings[name])


def config_records(kind: type, keys: Mapping[str, Key]) -> Iterator[Row]:
    """The keys of a user's or a group's record in the configuration file."""
    yield ("Key", "Type", "Default", "Example", "Meaning")
    meanings, kinds = _meanings(kind), get_type_hints(kind)
    for key, known in keys.items():
        yield (f"``{key}``", _RECORD_TYPES[kinds[key]], "none", f"``{known.example}``", meanings[key])


def settings_keys(
    keys: Mapping[str, Key], cls: type[Any], kinds: Mapping[str, str], names: Mapping[str, str] = {}
) -> Iterator[Row]:
    """
    The keys of one table of the configuration file.

    :param keys: their examples.
    :param cls: the class of the settings, whose docstring describes them.
    :param kinds: the types of the keys that are no text.
    :param names: the fields of the keys that have other names.
    """
    yield ("Key", "Type", "Default", "Example", "Meaning")
    meanings, fields = _meanings(cls), attrs.fields_dict(cls)
    for key, known in keys.items():
        name = names.get(key, key.replace("-", "_"))
        meaning = known.meaning or meanings[name]
        default = _shown_default(fields[name].default)
        yield (f"``{key}``", kinds.get(key, "text"), default, f"``{known.example}``", meaning)


def _shown_default(default: object) -> str:
    if default is attrs.NOTHING:
        return "none: required"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return "see the meaning"
    if default == ():
        return "``[]``"
    text = default.value if isinstance(default, Enum) else default
    return f"``{text}``" if isinstance(text, str) else str(text)


def config_shared() -> Iterator[Row]:
    """The keys of the store that nodes share, and of a node."""
    yield from settings_keys(shared.SHARED_KEYS, SharedSettings, _SHARED_TYPES)
    _, *of_node = settings_keys(shared.NODE_KEYS, NodeSettings, {})
    for key, *row in of_node:
        yield (f"{key} of ``[node]``", *row)


def all_metrics() -> Iterator[Row]:
    """Every metric, its type, its labels, and what it counts."""
    yield ("Metric", "Type", "Labels", "Meaning")
    for metric in METRICS:
        labels = ("worker", *metric.labels) if metric.per_worker else metric.labels
        meaning = metric.help
        if metric.values:
            meaning += f" Labels: {metric.values}."
        if metric.buckets:
            meaning += f" Up to {', '.join(f'{bound:g}' for bound in metric.buckets)} seconds."
        shown = ", ".join(f"``{label}``" for label in labels)
        yield (f"``{metric.name}``", metric.kind.value, shown, meaning)


def config_sets() -> Iterator[Row]:
    """The keys of a set in the configuration file."""
    yield ("Key", "Type", "Default", "Example", "Meaning")
    for key, known in sets.SET_KEYS.items():
        kind = "text or list of texts" if key.endswith("-file") else "list of texts"
        yield (f"``{key}``", kind, "none", f"``{known.example}``", known.meaning)


def config_rule() -> Iterator[Row]:
    """The keys of a rule in the configuration file."""
    yield ("Key", "Type", "Default", "Example", "Meaning")
    meanings = _meanings(Rule)
    kinds = get_type_hints(Rule)
    for key, name in rules.RULE_KEYS.items():
        meaning = meanings[name]
        default = next(field for field in attrs.fields(Rule) if field.name == name).default
        if key in _RULE_TIMEOUTS:
            row = ("number (seconds)", "the server's", _RULE_TIMEOUTS[key])
        elif default is attrs.NOTHING:
            row = (_RULE_TYPES[kinds[name]], "none: required", meaning)
        else:
            row = (_RULE_TYPES[kinds[name]], _default(default), meaning)
        kind, otherwise, meaning = row
        yield (f"``{key}``", kind, otherwise, f"``{rules.RULE_EXAMPLES[key]}``", meaning)


def _default(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "does not matter"


def _meanings(kind: type) -> dict[str, str]:
    """What the docstring of *kind* says of its attributes."""
    doc = inspect.cleandoc(kind.__doc__ or "")
    found = re.findall(r"^:ivar (\w+): ((?:.*\n?)(?:    .*\n?)*)", doc, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def _plainly(text: str) -> str:
    """*text*, in which options are no dashes, and addresses are examples."""
    return re.sub(r"(?<!\S)(--?[a-z][a-z-]*|\S+@\w+)", r"``\1``", text)


_TYPES = {
    FLAG: "true or false",
    WHOLE: "whole number",
    NUMBER: "number",
    TEXT: "text",
    WHOLE_OR_TEXT: "whole number or text",
    TEXTS: "list of texts",
}

_RULE_TIMEOUTS = {
    rules.CONNECT_TIMEOUT: "Seconds to look up the name and connect to the destination.",
    rules.IDLE_TIMEOUT: "Seconds without data after which its sessions end; 0: never.",
    rules.HALF_CLOSED_TIMEOUT: "Seconds without data after which its half-closed sessions end; 0: never.",
}

_STICKY_TYPES = {
    "allow": "list of texts",
    "for": "number (seconds)",
    "max": "number (seconds)",
    "strict": "true or false",
}

_ADMIN_TYPES = {"listener": "tables", "names": "list of texts", "notice": "number (seconds)"}

_HELPER_TYPES = {
    **dict.fromkeys(helpers.HELPER_KEYS, "number"),
    "command": "list of texts",
    "format": "text",
}

_METRIC_TYPES = {"users": "whole number"}

_USAGE_TYPES = {"file": "file", "days": "whole number"}

_SHARED_TYPES = {"required": "true or false", "nodes": "whole number"}

_UPSTREAM_TYPES = {"login": "table, or text", "try-timeout": "number (seconds)"}

_POOL_TYPES = {
    "members": "list of texts",
    "backup": "list of texts",
    "tries": "whole number",
    "down-after": "whole number",
    "retry-after": "number (seconds)",
    "check": "table",
}

_RULE_TYPES = {
    Limits | None: "table of limits",
    bool: "true or false",
    str: "text",
    bool | None: "true or false",
    str | None: "text",
    Collection[str] | None: "list of texts",
    Collection[int | str] | None: "list of whole numbers or texts",
    Collection[str | Command] | None: "list of texts",
    Collection[int | str | tuple[int, int]] | None: "list of whole numbers or texts",
}

_LIMIT_TYPES = {
    int: "whole number",
    int | None: "whole number",
    Rate | None: "number, text or table",
    Fallback | None: "text",
    "daily": "whole number or text",
    "monthly": "whole number or text",
    "counts": "text",
}

_RECORD_TYPES = {
    str | None: "text",
    bool | None: "true or false",
    datetime | None: "date, or date and time",
    tuple[str, ...]: "list of texts",
    tuple[str, ...] | None: "list of texts",
    Limits: "table of limits",
}

TABLES = {
    "config-users": partial(config_records, UserRecord, users.USER_KEYS),
    "config-groups": partial(config_records, GroupRecord, users.GROUP_KEYS),
    "config-upstreams": partial(settings_keys, upstreams.UPSTREAM_KEYS, Upstream, _UPSTREAM_TYPES),
    "config-pools": partial(settings_keys, pools.POOL_KEYS, UpstreamPool, _POOL_TYPES),
    "ctl-subcommands": ctl_subcommands,
    "ctl-options": ctl_options,
    "ctl-statuses": ctl_statuses,
    "config-admin": partial(
        settings_keys, admin.ADMIN_KEYS, AdminSettings, _ADMIN_TYPES, {"listener": "listeners"}
    ),
    "config-admin-listener": partial(settings_keys, admin.ADMIN_LISTENER_KEYS, AdminListener, {}),
    "config-helpers": partial(settings_keys, helpers.HELPER_KEYS, HelperSettings, _HELPER_TYPES),
    "config-shared": config_shared,
    "config-metrics": partial(settings_keys, metrics.METRIC_KEYS, MetricsSettings, _METRIC_TYPES),
    "config-usage": partial(settings_keys, records.RECORD_KEYS, RecordSettings, _USAGE_TYPES),
    "metrics": all_metrics,
    "config-sets": config_sets,
    "config-sticky": partial(settings_keys, sticky.STICKY_KEYS, StickySettings, _STICKY_TYPES, sticky.FIELDS),
    "config-limit-keys": config_limits,
    "config-rule": config_rule,
    **{f"config-{name}": partial(config_keys, name) for name in FILE_TABLES},
    "options": options,
    "states": states,
    "replies": replies,
    "telling": telling,
    "special-addresses": special_addresses,
}


#: Where a table belongs, and the one that is there.
_PLACE = re.compile(
    r"^\.\. from-the-code:: (\S+)\n(?:\n\.\. list-table::\n   :header-rows: 1\n\n(?:   .*\n)+)?", re.MULTILINE
)
_WIDTH = 100


def as_list_table(rows: Iterable[Row]) -> str:
    """*rows*, the first of them the heading, as reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for number, cell in enumerate(row):
            begin = f"   {'*' if number == 0 else ' '} - "
            wrapped = textwrap.wrap(
                cell,
                _WIDTH,
                initial_indent=begin,
                subsequent_indent="       ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            lines += wrapped or [begin.rstrip()]
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """The page *text* with the tables that the code has now."""
    return _PLACE.sub(
        lambda place: f".. from-the-code:: {place[1]}\n\n{as_list_table(TABLES[place[1]]())}\n", text
    )


def _by_telling(one: Reply, other: Reply) -> int:
    return -1 if errors.most_telling([one, other]) is one else 1


def _codes(reply: Reply) -> Row:
    return f"{reply.value} ({_words(reply)})", str(errors.reply4_for(reply).value)


def _words(reply: Reply) -> str:
    return errors.words(reply)


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().splitlines()[0]


#: Where the README shows what the program prints.
_HELP = re.compile(r"(^``twistd socks --help``::\n\n)(?:    .*\n|\n)+?(?=^\S)", re.MULTILINE)


def with_help(text: str) -> str:
    """The README *text* with what ``twistd socks --help`` prints now, 80 columns wide."""
    options = Options()
    usage = f"Usage: twistd [options] socks {options.synopsis}"
    lines = [usage, *options.getUsage(width=80).strip("\n").splitlines()]
    shown = textwrap.indent("\n".join(line.rstrip() for line in lines), "    ")
    return _HELP.sub(lambda place: f"{place[1]}{shown}\n\n", text)


def main() -> None:
    """Write the tables into the pages, and the options into the README."""
    docs = Path(__file__).parent.parent
    for page in (docs.parent / "README.rst", *docs.glob("*.rst")):
        before = page.read_text("utf-8")
        after = with_help(with_tables(before))
        if after != before:
            page.write_text(after, "utf-8")
            print(page.name)


if __name__ == "__main__":
    main()
