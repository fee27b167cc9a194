"""The engine on many processes of one host: `share` is one process's part, `local` runs several."""

from loadgen.engine.share import Endpoint, Job, Running, Share, ShareJob, ShareRun, make_room_for_sockets

__all__ = ["Endpoint", "Job", "Running", "Share", "ShareJob", "ShareRun", "make_room_for_sockets"]
