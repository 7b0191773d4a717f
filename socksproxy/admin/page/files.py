"""
The files of the status page: plain HTML, CSS and modules of JavaScript, which a browser takes as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import RequestRefused
from ..routes import Asked
from ..site import Response

_FOLDER = Path(__file__).parent / "static"

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

#: The page loads and asks this server alone, and runs no text: names of users and destinations are texts.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class PageFiles:
    """The files, which are read once: an upgrade of the package must not mix versions."""

    def __init__(self) -> None:
        self._files = {
            path.name: Response(path.read_bytes(), 200, _KINDS[path.suffix], _HEADERS)
            for path in _FOLDER.iterdir()
            if path.suffix in _KINDS
        }

    def page(self, asked: Asked) -> Any:
        """The page itself."""
        return self._files["index.html"]

    def file(self, asked: Asked) -> Any:
        """What the page consists of."""
        found = self._files.get(asked.names["file"])
        if found is None:
            raise RequestRefused(404, "the page has no such file")
        return found
