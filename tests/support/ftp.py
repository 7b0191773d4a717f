"""An FTP server on loopback, in a thread, that makes its data connections itself."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from .programs import missing


class FTPOrigin:
    """
    Serves *directory*, readable and writable, to anybody.

    Like most servers it connects to the client's own address only: for
    a client behind a proxy that is the proxy's, in the family of the control connection.

    :ivar port: where it listens.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        try:
            from pyftpdlib.authorizers import DummyAuthorizer
            from pyftpdlib.handlers import FTPHandler
            from pyftpdlib.ioloop import IOLoop
            from pyftpdlib.servers import FTPServer
        except ImportError:
            missing("the library pyftpdlib")
        anybody = DummyAuthorizer()
        anybody.add_user("me", "secret", str(directory), perm="elradfmw")
        handler: Any = type("Handler", (FTPHandler,), {"authorizer": anybody})
        self._server: Any = FTPServer((host, 0), handler, ioloop=IOLoop())
        self.host = host
        self.port: int = self._server.socket.getsockname()[1]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FTPOrigin:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._server.close_all()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            self._server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)
