"""
The words that rules have for listeners: what they are for each, and which of them can match.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ..net.endpoints import place_described
from ..net.names import literal, plain
from ..net.own_listeners import UNIX, OwnListeners, Place
from ..net.special_addresses import WILDCARDS
from ..values.errors import ConfigError
from .words import listed, nearest

_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)
_LISTENER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_RIGHT = "must be a listener's name, an address and a port as in 192.0.2.1:1080, or unix: and a path"


class Listening(NamedTuple):
    """
    What rules can know of a listener before it opens.

    :ivar name: what rules call it, beside its address.
    :ivar place: where it is going to be; None: that shows only when it opens.
    """

    name: str | None
    place: Place | None


def listeners_of(said: Mapping[str, Any]) -> list[Listening]:
    """The listeners that the file describes, of which *said* has the values of options."""
    if said.get("listen"):
        return described(said["listen"])
    if "interface" not in said and "port" not in said:
        return []
    address = literal(said.get("interface", "127.0.0.1") or "0.0.0.0")
    port = int(said.get("port", 1080))
    return [Listening(None, None if address is None or not port else (plain(address), port))]


def described(texts: Iterable[str]) -> list[Listening]:
    """Those of *texts*, which have the form of ``listen``, that make sense."""
    found = []
    for text in texts:
        with suppress(ConfigError):  # the option tells it
            name, description = named_listener(text)
            found.append(Listening(name, place_described(description)))
    return found


def words_for(word: str, listeners: Collection[Listening], others: Collection[str] = ()) -> tuple[str, ...]:
    """
    All words that rules may have for the listener that *word* means, as the server has them for its clients.

    :param word: a name, an address and port, ``unix:`` and a path, or ``unix``.
    :param listeners: those that are known.
    :param others: further names that listeners may have.
    :raises ConfigError: when there is no such listener.
    """
    own = OwnListeners()
    for each in listeners:
        if each.place is not None:
            own.call(each.place, each.name)
    place = _place(word)
    if place is not None:
        return own.words_for(place)
    meant = [
        each for each in listeners if each.name == word or (word == UNIX and isinstance(each.place, str))
    ]
    if not meant and word != UNIX and word not in others:
        raise ConfigError(_no_such(word, listeners))
    if len(meant) == 1 and meant[0].place is not None and not _is_wildcard(meant[0].place):
        return own.words_for(meant[0].place)
    # Which of its addresses a client has reached is not known.
    unix = meant and all(isinstance(each.place, str) for each in meant)
    return (word, UNIX) if unix and word != UNIX else (word,)


def named_listener(text: str) -> tuple[str | None, str]:
    """The name that rules have for a listener, None if it has none, and the description of its endpoint."""
    name, separator, description = text.partition("=")
    if not separator or ":" in name:
        return None, text
    if not _LISTENER_NAME.fullmatch(name) or name == UNIX:
        right = "a listener's name is of letters, digits, '-' and '_', begins with a letter, and is not unix"
        raise ConfigError(right, name)
    return name, description


def problem_with(word: str, listeners: Collection[Listening], names: Collection[str]) -> str | None:
    """
    Why no client comes by what a rule calls *word*; None: one may.

    :param listeners: those whose places count; empty: nothing is known of them.
    :param names: of all listeners.
    """
    if word in names:
        return None
    places = [each.place for each in listeners]
    unknown = not places or None in places
    if word == UNIX:
        there = unknown or any(isinstance(place, str) for place in places)
        return None if there else "there is no Unix socket among the listeners"
    place = _place(word)
    if place is None:
        return _unreadable(word, listeners, names)
    if isinstance(place, str):
        return None if unknown or place in places else _no_such(word, listeners)
    if _is_wildcard(place):
        return (
            'no client reaches this address; a name stands for all: "front" for listen = ["front=tcp:1080"]'
        )
    own = OwnListeners()
    canonical = own.words_for(place)[0]
    if word != canonical:
        return f"must be written {canonical}"
    there = unknown or any(not isinstance(each, str) and _serves(each, place) for each in places)
    return None if there else _no_such(word, listeners)


def _place(word: str) -> Place | None:
    """The place that *word* says; None: it says none."""
    if word.startswith(f"{UNIX}:"):
        return word.removeprefix(f"{UNIX}:") or None
    matched = _ADDRESS.fullmatch(word)
    address = None if matched is None else literal(matched[1] or matched[2])
    if matched is None or address is None or not 0 < int(matched[3]) < 65536:
        return None
    return plain(address), int(matched[3])


def _serves(listening: Place | None, place: Place) -> bool:
    return listening is not None and (
        listening == place or (listening[1] == place[1] and _is_wildcard(listening))
    )


def _is_wildcard(place: Place) -> bool:
    return not isinstance(place, str) and place[0] in WILDCARDS


def _unreadable(word: str, listeners: Collection[Listening], names: Collection[str]) -> str:
    if literal(word) is not None:
        host = f"[{word.strip('[]')}]" if ":" in word else word
        return f"the port is missing, as in {host}:1080"
    return _RIGHT if ":" in word else _no_such(word, listeners, names)


def _no_such(word: str, listeners: Collection[Listening], names: Collection[str] = ()) -> str:
    known = {each.name for each in listeners if each.name is not None} | set(names)
    if ":" not in word:
        near = nearest(word, known)
        return f"there is no such listener; {f'did you mean {near}?' if near else _NAMING}"
    own = OwnListeners()
    places = [own.words_for(each.place)[0] for each in listeners if each.place is not None]
    if not places or _place(word) is None:
        return _RIGHT
    return f"there is no such listener; there are {listed(dict.fromkeys(places))}"


_NAMING = "NAME=ENDPOINT in [listeners] listen names one"
