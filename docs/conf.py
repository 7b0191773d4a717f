"""Sphinx's settings: ``sphinx-build -W -b html docs docs/_build/html``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from socksproxy import __version__  # noqa: E402 - found through the path above

project = "socksproxy"
copyright = "the authors of socksproxy"
author = "the authors of socksproxy"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "from_the_code"]
exclude_patterns = ["_build", "examples", "performance-*.rst"]
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "alabaster"
html_theme_options = {
    "description": "A SOCKS4, SOCKS4a and SOCKS5 server for Twisted",
    "fixed_sidebar": True,
}
html_show_sourcelink = False
