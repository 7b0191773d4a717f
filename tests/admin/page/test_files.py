"""The files of the status page: see :mod:`socksproxy.admin.page.files`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_twisted

import socksproxy.admin.page
from socksproxy.admin.settings import AdminLevel

from ...conftest import Serve
from ...support.admin import administered, asks
from ...support.proxy import Playing, Proxy

FOLDER = Path(socksproxy.admin.page.__file__).parent / "static"
PAGE = (FOLDER / "index.html").read_text("utf-8")


@pytest_twisted.inlineCallbacks
def test_served(serve_as: Serve, tmp_path: Path) -> Playing:
    """The page and all that it consists of are there at the lowest level, and nothing else."""
    proxy: Proxy = yield serve_as()
    path = tmp_path / "admin"
    with administered(proxy.factory, path, AdminLevel.MONITOR):
        page = yield proxy.play(asks, path, "GET", "/")
        assert (page.status, page.data.decode()) == (200, PAGE)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        for name in re.findall(r'(?:src|href)="(/page/[^"]+)"', PAGE):
            file = yield proxy.play(asks, path, "GET", name)
            assert (file.status, file.headers["X-Content-Type-Options"]) == (200, "nosniff")
            assert file.data == (FOLDER / name.rpartition("/")[2]).read_bytes()
        for name in ("/page/", "/page/..%2f__init__.py", "/page/__init__.py", "/page/nothing"):
            assert (yield proxy.play(asks, path, "GET", name)).status == 404
        assert (yield proxy.play(asks, path, "POST", "/")).status == 405


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.*")), ids=lambda path: path.name)
def test_no_foreign_text(path: Path) -> None:
    """Nothing comes from elsewhere, and no text of a client can become markup."""
    text = path.read_text("utf-8")
    if path.name.startswith("uplot"):
        return
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|insertAdjacent|document\.write|eval\(", text
    )
    if path.suffix == ".html":
        assert not re.search(r"<script(?![^>]* src=)|<style|\bstyle=|\bon\w+=", text)


def test_licence() -> None:
    """The library that draws is there as its author gives it, with its licence."""
    assert (FOLDER / "uplot.js").read_text("utf-8").startswith("/*! https://github.com/leeoniya/uPlot (v1.6.")
    assert "The MIT License" in (FOLDER / "uplot-LICENSE.txt").read_text("utf-8")
