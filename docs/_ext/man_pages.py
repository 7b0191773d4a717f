"""
The man pages are made from the pages of the documentation.

``man-*.rst`` include those pages. No other build reads them. In a man page a link to another page is its
text, and a table is a list: the first column is the term, the last one the text, and a line with headings has
the others.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the hooks."""
    app.connect("builder-inited", without_man_pages)
    app.connect("doctree-resolved", for_man)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_man_pages(app: Sphinx) -> None:
    """Leave the man pages out of every other build."""
    if app.builder.name != "man":
        app.config.exclude_patterns.append("man-*.rst")


def for_man(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Replace what a terminal cannot show."""
    if app.builder.name != "man":
        return
    for link in list(tree.findall(nodes.reference)):
        if link.get("internal"):
            link.replace_self(link.children)
    for table in list(tree.findall(nodes.table)):
        table.replace_self(as_list(table))


def as_list(table: nodes.table) -> nodes.definition_list:
    """The rows of *table*, each as a term and its definition."""
    heads = [entry.astext() for head in table.findall(nodes.thead) for entry in head.findall(nodes.entry)]
    items = nodes.definition_list()
    for body in table.findall(nodes.tbody):
        for row in body.findall(nodes.row):
            items += _item(heads, [entry.children for entry in row.findall(nodes.entry)])
    return items


def _item(heads: list[str], cells: list[list[nodes.Node]]) -> nodes.definition_list_item:
    first, *middle, last = cells
    facts = nodes.paragraph()
    for head, cell in zip(heads[1:-1], middle, strict=False):
        if cell:
            facts += [nodes.Text(f"{'; ' if facts.children else ''}{head}: "), *cell[0].children]
    definition = nodes.definition("", *last)
    if facts.children:
        definition += facts
    return nodes.definition_list_item("", nodes.term("", "", *first[0].children), definition)
