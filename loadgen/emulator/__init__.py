"""The calibration standard: a server of known timing that speaks the dialects of the servers loadgen measures.

    with spawn(Law(ttft_s=0.05, gap_s=0.02)) as emulator:
        ...                                   # any client against emulator.url
        truth = emulator.truth()["my-id"]     # what the server did, to the nanosecond, by X-Request-Id

`physics` computes when tokens are due, the dialects (`openai`, `ollama`, `lmstudio`) make their bytes, `server` sends
them, `truth` records the sends.
"""

from .physics import Law
from .spawn import spawn
from .truth import Truth, read_truth

__all__ = ["Law", "Truth", "read_truth", "spawn"]
