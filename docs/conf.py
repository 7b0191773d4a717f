"""
Sphinx's settings.

``sphinx-build -W -b html docs docs/_build/html`` builds the pages, and
``sphinx-build -W -b man docs docs/_build/man`` builds the man pages.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from socksproxy import __version__  # noqa: E402 - found through the path above

project = "socksproxy"
copyright = "the authors of socksproxy"
author = "the authors of socksproxy"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx_design", "from_the_code", "man_pages"]
# Pages that other pages include.
exclude_patterns = ["_build", "examples", "performance-*.rst", "comparison-results.rst"]
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "socksproxy"
html_show_sourcelink = False

#: Source, name, description, author, section.
man_pages = [
    ("man-socksproxy", "socksproxy", "SOCKS4, SOCKS4a and SOCKS5 proxy server", author, 1),
    ("man-socksproxy.toml", "socksproxy.toml", "configuration file of socksproxy", author, 5),
]
