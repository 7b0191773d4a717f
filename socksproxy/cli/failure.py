"""How a subcommand fails."""

from __future__ import annotations


class CommandFailed(Exception):
    """What was asked for is not done; its words are for the operator, one line."""
