"""
The admin listeners of a service.

What they need is imported with the first of them: a server without them has no HTTP in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..admin.settings import AdminSettings

if TYPE_CHECKING:
    from ..admin.control import Control
    from ..admin.ports import AdminPorts
    from ..admin.routes import Routes


class CannotAdminister(Exception):
    """The admin listeners cannot be opened; the message is for the operator."""


class AdministeredService(Protocol):
    """What the admin listeners use of their service."""

    @property
    def reactor(self) -> Any: ...

    def control(self) -> Control: ...

    def admin_places_changed(self) -> None: ...


class Administration:
    """
    Opens and closes the admin listeners, as the service goes from one configuration to the next.

    :param service: is asked, and told where its admin listeners are.
    """

    def __init__(self, service: AdministeredService) -> None:
        self._service = service
        self._routes: Routes | None = None
        self._ports: AdminPorts | None = None
        self._next: AdminPorts | None = None

    @property
    def places(self) -> list[tuple[str, int]]:
        """The addresses and ports to which no client of the proxy may be connected."""
        return [] if self._ports is None else self._ports.places

    def open(self, settings: AdminSettings | None) -> None:
        """
        Open the listeners of *settings*, at the start.

        :raises CannotAdminister: when one cannot.
        """
        self.prepare(settings)
        self.enter()

    def prepare(self, settings: AdminSettings | None) -> None:
        """
        Open what *settings* have and is not open yet; it answers nothing so far.

        :raises CannotAdminister: when one cannot; then all is as it was.
        """
        if settings is None and self._ports is None:
            return
        from ..admin.ports import AdminPorts, CannotOpen

        try:
            self._next = AdminPorts(self._service.reactor, settings, self._table, self._agent, self._ports)
        except CannotOpen as problem:
            raise CannotAdminister(str(problem)) from None

    def enter(self) -> list[str]:
        """
        What was prepared is in force.

        :returns: what has changed, in a few words each.
        """
        prepared, self._next = self._next, None
        if prepared is None:
            return []
        before = self.places
        prepared.enter()
        self._ports = prepared
        if self.places != before:
            self._service.admin_places_changed()
        return []

    def abandon(self) -> None:
        """Close what was prepared; all stays as it was."""
        prepared, self._next = self._next, None
        if prepared is not None:
            prepared.abandon()

    def close(self) -> None:
        """Close all of them."""
        ports, self._ports = self._ports, None
        if ports is not None:
            ports.close()

    def _table(self) -> Routes:
        if self._routes is None:
            from ..admin.api import routes_of

            self._routes = routes_of(self._service.control())
        return self._routes

    def _agent(self) -> Any:
        from ..admin.agent import AgentFactory

        return AgentFactory(self._service.control())
