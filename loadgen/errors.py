"""The errors that a user can act on. Each message is one line; everything else that is raised is a bug."""

__all__ = ["NotCleared", "Unreachable", "UsageError", "WorkerDied"]


class UsageError(ValueError):
    """A profile, option or file that cannot be used: the place, the value and the cure."""


class Unreachable(Exception):
    """A URL at which no HTTP server answers, and the cause."""


class NotCleared(Exception):
    """A server that offers a way to clear its cache or model, and failed to."""


class WorkerDied(Exception):
    """A worker process that ended without reporting."""
