"""
``twistd socks``: the options and the service that they make.

What is wrong with an option shows while the options are parsed; what shows only when the listeners open is
:class:`~socksproxy.service.opening.CannotStart`. Both end the process with one line and a status that is
not 0.
"""

from __future__ import annotations

from .runtime.garbage import importing

with importing():
    from .config import command_line
    from .net.resources import Resources
    from .runtime.clocks import use_monotonic_clock
    from .service.base import ListeningService
    from .service.daemon import prepare_files
    from .service.server import SOCKSService, make_factory
    from .workers.descriptor_passing import SupervisorResources

__all__ = ["Options", "makeService"]


class Options(command_line.SOCKSOptions):
    """The options of ``twistd socks``, for this process or for a supervisor and its workers."""

    def make_resources(self) -> Resources:
        """See :meth:`socksproxy.config.command_line.SOCKSOptions.make_resources`."""
        return SupervisorResources(self.reactor) if self["worker_count"] > 1 else super().make_resources()

    def postOptions(self) -> None:
        """See :meth:`socksproxy.config.command_line.SOCKSOptions.postOptions`."""
        super().postOptions()
        if self.parent is not None:
            prepare_files(self.parent, self.plan.server_log)


def makeService(options: command_line.SOCKSOptions) -> ListeningService:
    """
    The service that *options* describe: one process, or a supervisor and its workers.

    The reactor has a monotonic clock from then on: see
    :func:`~socksproxy.runtime.clocks.use_monotonic_clock`.

    :param options: parsed.
    """
    use_monotonic_clock(options.reactor)
    if options.plan.workers > 1:
        # One process does without the machinery for many.
        from .workers.supervisor import SupervisorService

        return SupervisorService(options)
    return SOCKSService(options, make_factory(options))
