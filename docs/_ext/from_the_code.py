"""
What keeps the documentation true: text that comes from the code.

``.. from-the-code:: NAME`` says that the table behind it is one of those that :mod:`tables` writes;
``.. interface:: MODULE.NAME`` describes a zope interface, which autodoc cannot.
In signatures autodoc shows an interface as its ``repr()``: here it is its name.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib import import_module
from typing import Any

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata
from zope.interface.interface import InterfaceClass, Method


class FromTheCode(SphinxDirective):
    """A mark: the table behind it is written by :mod:`tables`."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """The nodes in place of the directive: none."""
        return []


class Interface(SphinxDirective):
    """A zope interface, its attributes and its methods."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """The nodes in place of the directive."""
        module, _, name = self.arguments[0].rpartition(".")
        return self.parse_text_to_nodes(described(module, getattr(import_module(module), name)))


def described(module: str, interface: InterfaceClass) -> str:
    """*interface*, a public name of *module*, in the words of Sphinx's Python domain."""
    name = interface.getName()
    text = f".. py:class:: {module}.{name}\n\n{_body(interface.getDoc())}"
    for part_name, part in interface.namesAndDescriptions():
        kind, signature = "attribute", ""
        if isinstance(part, Method):
            kind, signature = "method", part.getSignatureString()
        parts = f".. py:{kind}:: {part_name}{signature}\n\n{_body(part.getDoc())}"
        text += textwrap.indent(parts, "   ")
    return text


def _body(doc: str) -> str:
    return textwrap.indent(inspect.cleandoc(doc), "   ") + "\n\n"


def named(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """See the event ``autodoc-process-signature`` of Sphinx."""
    return _named(signature), _named(returns)


def _named(text: str | None) -> str | None:
    return text and re.sub(r"<InterfaceClass (?:\w+\.)*(\w+)>", r"\1", text)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("from-the-code", FromTheCode)
    app.add_directive("interface", Interface)
    app.connect("autodoc-process-signature", named)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
