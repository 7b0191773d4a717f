"""
Two directives that keep the documentation true: their text comes from the code.

``.. from-the-code:: NAME`` is one of the tables of :mod:`tables`;
``.. interface:: MODULE.NAME`` describes a zope interface, which autodoc cannot.
"""

from __future__ import annotations

import inspect
import textwrap
from importlib import import_module

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata
from tables import TABLES, as_list_table
from zope.interface.interface import InterfaceClass, Method


class FromTheCode(SphinxDirective):
    """A table of :mod:`tables`."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """The nodes in place of the directive."""
        return self.parse_text_to_nodes(as_list_table(TABLES[self.arguments[0]]()))


class Interface(SphinxDirective):
    """A zope interface and its methods."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """The nodes in place of the directive."""
        module, _, name = self.arguments[0].rpartition(".")
        return self.parse_text_to_nodes(described(module, getattr(import_module(module), name)))


def described(module: str, interface: InterfaceClass) -> str:
    """*interface*, a public name of *module*, in the words of Sphinx's Python domain."""
    name = interface.getName()
    text = f".. py:class:: {module}.{name}\n\n{_body(interface.getDoc())}"
    for method_name, method in interface.namesAndDescriptions():
        if isinstance(method, Method):
            parts = f".. py:method:: {method_name}{method.getSignatureString()}\n\n{_body(method.getDoc())}"
            text += textwrap.indent(parts, "   ")
    return text


def _body(doc: str) -> str:
    return textwrap.indent(inspect.cleandoc(doc), "   ") + "\n\n"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_directive("from-the-code", FromTheCode)
    app.add_directive("interface", Interface)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
