"""A configuration at an HTTPS URL (RFC 9110): with an ETag, and from the very server that the URL names."""

from __future__ import annotations

import ssl
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from socket import SHUT_RDWR, socket
from threading import Timer
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import describe
from .found import FoundConfig, SourceProblem

#: Seconds in which the server must have answered, and those of each wait.
_WITHIN, _PATIENCE = 30.0, 10.0
_OK, _NOT_MODIFIED = 200, 304


class HTTPSSource:
    """
    An HTTPS URL. Redirects are not followed: the certificate is to be that of the host in the URL.

    :param url: with a name and a password for Basic, if the server wants them (RFC 7617).
    :param most: bytes that the answer may have.
    :param ca_file: certificates that vouch for the server; None: those of the system.
    :param within: seconds in which the server must have answered.
    :raises SourceProblem: when *url* is none, or *ca_file* has no certificates.
    """

    def __init__(self, url: str, most: int, ca_file: str | None = None, within: float = _WITHIN) -> None:
        self._most = most
        self._within = within
        try:
            parts = urlsplit(url)
            self._place = parts.hostname or "", parts.port or 443
        except ValueError:
            raise SourceProblem("not a URL") from None
        if not self._place[0] or not url.isascii() or any(each <= " " for each in url):
            raise SourceProblem("not a URL such as https://config.example.org/socks.toml")
        self._path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._headers = _headers(parts)
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ValueError) as problem:
            reason = describe(problem) if isinstance(problem, OSError) else str(problem)
            raise SourceProblem(f"{ca_file}: {reason}") from None

    def look(self, known: FoundConfig | None) -> FoundConfig:
        """See :meth:`~socksproxy.sources.found.Source.look`."""
        headers = dict(self._headers)
        if known is not None and known.tag is not None:
            headers["If-None-Match"] = known.tag
        host, port = self._place
        connection = HTTPSConnection(host, port, timeout=_PATIENCE, context=self._context)
        try:
            with _Deadline(self._within) as deadline:
                connection.connect()
                deadline.watch(connection.sock)
                connection.request("GET", self._path, headers=headers)
                return self._read(connection.getresponse(), known)
        except ssl.SSLCertVerificationError as problem:
            raise SourceProblem(f"the certificate of the server is wrong: {problem.verify_message}") from None
        except TimeoutError:
            raise SourceProblem("does not answer in time") from None
        except ssl.SSLError as problem:
            raise SourceProblem(f"TLS fails: {problem.reason or problem}") from None
        except (HTTPException, ValueError) as problem:
            raise SourceProblem(f"its answer cannot be used: {type(problem).__name__}") from None
        except OSError as problem:
            raise SourceProblem(describe(problem)) from None
        finally:
            connection.close()

    def _read(self, response: HTTPResponse, known: FoundConfig | None) -> FoundConfig:
        if response.status == _NOT_MODIFIED and known is not None:
            return known
        if 300 <= response.status < 400:
            raise SourceProblem(f"answers {response.status}: the URL must be the final one")
        if response.status != _OK:
            raise SourceProblem(f"answers {response.status} instead of 200")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise SourceProblem("sends an encoding that was not asked for")
        if response.length is None and not response.chunked:
            raise SourceProblem("does not say how long its answer is")
        content = response.read(self._most + 1)
        if len(content) > self._most:
            raise SourceProblem(f"is larger than {self._most} bytes")
        if response.length:
            raise SourceProblem("breaks off in its answer")
        return FoundConfig(content, tag=response.getheader("ETag"))


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "twisted-socksproxy", "Connection": "close"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode('ascii')}"
    return headers


class _Deadline:
    """
    Ends a connection that takes too long: a byte now and then would keep it for ever.

    :param seconds: that it may take.
    """

    def __init__(self, seconds: float) -> None:
        self._over = False
        self._socket: socket | None = None
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def watch(self, socket: socket) -> None:
        """This is the socket of the connection, which forgets it with the last answer."""
        self._socket = socket
        if self._over:
            raise TimeoutError

    def __exit__(self, kind: object, value: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        if self._over and (value is None or isinstance(value, (OSError, HTTPException, SourceProblem))):
            raise TimeoutError

    def _end(self) -> None:
        self._over = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(SHUT_RDWR)
