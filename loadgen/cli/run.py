"""`loadgen run`: offer a load to one or more servers and report."""

from __future__ import annotations

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import load_profile, maybe_emulator, measure_one
from loadgen.cli.options import Measuring, takes

__all__ = ["run"]

DEFAULT_PROFILE = "quickstart"


@takes("run", Measuring)
def run(given: Measuring) -> int:
    """Offer a load and report what the server did, and how sure that is."""
    # A load given in full needs no profile; given nothing, the quickstart answers "what can it do".
    source = given.profile or (None if "load" in given.overrides else DEFAULT_PROFILE)
    with maybe_emulator(given.emulator, given.url) as urls:
        profile = load_profile(source, urls, given.target, given.overrides, quiet=given.quiet)
        if profile.agents is not None:
            raise Stop(Exit.USAGE, f"{given.profile}: describes agents; use loadgen agents {given.profile}")
        return measure_one(profile, source, given)
