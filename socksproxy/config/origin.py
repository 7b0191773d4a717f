"""
Where the configuration comes from, as the command line says it, and what guards it there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import attrs

from ..errors import describe
from ..extras import missing
from ..runtime.files import read_regular_file
from ..sources.files import DirectorySource, FileSource
from ..sources.found import FoundConfig, Source, SourceProblem
from ..sources.https import HTTPSSource
from ..sources.last_good import LastGood
from ..values.errors import ConfigError
from ..values.shared import StoreAddress
from .environment import expanded
from .words import MOST_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

#: Schemes of stores.
_STORES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix")


@attrs.frozen
class Origin:
    """
    Where the configuration comes from.

    :ivar name: the source, as the command line names it.
    :ivar source: looks there.
    :ivar watched: whether a source of its kind is looked at again and again.
    :ivar key: whose signature it must have; None: it needs none.
    :ivar last_good: keeps the one that was last in force; None: nothing does.
    """

    name: str
    source: Source
    watched: bool
    key: Ed25519PublicKey | None = None
    last_good: LastGood | None = None

    def look(self, known: FoundConfig | None = None, present: FoundConfig | None = None) -> FoundConfig:
        """
        What the source holds now; it blocks.

        :param known: what it held when it was looked at before.
        :param present: what is in force; one that was signed before it is refused.
        :raises SourceProblem: when there is nothing, or nothing that may be used.
        """
        seen = self.source.look(known)
        return seen if seen is known else self._checked(seen, present)

    def kept(self) -> FoundConfig | None:
        """
        The last good one; None: there is none.

        :raises SourceProblem: when it cannot be read, or has been tampered with.
        """
        kept = None if self.last_good is None else self.last_good.read()
        try:
            return None if kept is None else self._checked(kept, None)
        except SourceProblem as problem:
            raise SourceProblem(f"{self.last_good and self.last_good.path}: {problem}") from None

    def _checked(self, seen: FoundConfig, present: FoundConfig | None) -> FoundConfig:
        if self.key is None:
            return seen
        from ..sources.signing import check_signature

        signed = check_signature(seen.content, self.key)
        if present is not None and signed < present.signed:
            order = f"was signed at {signed}, before the one in force ({present.signed})"
            raise SourceProblem(f"{order}: to go back, sign it again")
        return attrs.evolve(seen, signed=signed)


def origin_of(given: Mapping[str, Any], directory: str) -> Origin:
    """
    Where the configuration comes from.

    :param given: what the options say whose names begin with ``config``.
    :param directory: from where files are named.
    :raises ConfigError: when that cannot be. Its path is the name of the option.
    """
    name, ca_file, state = given["config"], given.get("config-ca"), given.get("config-state")
    if ca_file is not None:
        ca_file = os.path.join(directory, ca_file)
    try:
        source, watched = _source(name, ca_file, directory)
    except SourceProblem as problem:
        raise ConfigError(str(problem), name, path=("config",)) from None
    except ConfigError as problem:
        raise ConfigError(problem.reason, name, path=("config",)) from None
    return Origin(
        name,
        source,
        watched,
        key=_key(given.get("config-key"), directory),
        last_good=None if state is None else LastGood(os.path.join(directory, state), MOST_BYTES),
    )


def is_remote(name: str) -> bool:
    """Whether the source *name* is on another machine, or may be."""
    scheme, mark, _ = name.partition("://")
    return bool(mark) and scheme in ("https", "http", *_STORES)


def _source(name: str, ca_file: str | None, directory: str) -> tuple[Source, bool]:
    if not is_remote(name):
        path = os.path.join(directory, name)
        if os.path.isdir(path):
            return DirectorySource(path, MOST_BYTES), True
        return FileSource(path, MOST_BYTES), False
    _check_secret(name)
    url, scheme = expanded(name), name.partition("://")[0]
    if scheme == "http":
        raise ConfigError("https:// is needed")
    if scheme == "https":
        return HTTPSSource(url, MOST_BYTES, ca_file), True
    address, _, key = url.partition("#")
    if not key:
        raise ConfigError(f"names no key of the store, as in {scheme}://HOST/0#KEY")
    store = StoreAddress.of(address)
    try:
        from ..sources.stored import StoreSource
    except ImportError as problem:
        raise ConfigError(missing("shared", problem)) from None
    return StoreSource(store, unquote(key), MOST_BYTES, ca_file), True


def _check_secret(name: str) -> None:
    try:
        password = urlsplit(name).password
    except ValueError:
        raise ConfigError("not a URL") from None
    if password and not (password.startswith("${") and password.endswith("}")):
        # All users of the machine see the command lines of its processes.
        raise ConfigError("put the password into the environment, as in https://NAME:${PASSWORD}@HOST/")


def _key(name: str | None, directory: str) -> Ed25519PublicKey | None:
    if name is None:
        return None
    try:
        from ..sources.signing import public_key
    except ImportError as problem:
        raise ConfigError(missing("tls", problem), path=("config-key",), shown=False) from None
    try:
        return public_key(read_regular_file(os.path.join(directory, name)).data)
    except OSError as problem:
        reason = describe(problem)
    except (SourceProblem, ValueError) as problem:
        reason = str(problem)
    raise ConfigError(reason, name, path=("config-key",))
