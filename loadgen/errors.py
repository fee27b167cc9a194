"""The errors that a user can act on. Each message is one line; everything else that is raised is a bug of ours."""

__all__ = ["NotCleared", "Unreachable", "UsageError", "WorkerDied"]


class UsageError(ValueError):
    """A profile, option or file that cannot be used: the place, the value and the cure."""


class Unreachable(Exception):
    """A URL at which no HTTP server answers, and the cause."""


class NotCleared(Exception):
    """A server that offers a way to forget, and failed at it."""


class WorkerDied(Exception):
    """A worker process that ended without reporting."""
