"""Put on PYTHONPATH of the vLLM server, so that its processes share two cores without starving each other.

vLLM's engine and worker wait for each other by calling sched_yield() in a loop for a second after every
message. With fewer cores than processes that loop takes the time the tokens, and the client measuring them,
need: answers arrive seconds late and all in one read. A short sleep instead of the yield cures it, and vLLM's
own files stay as they are. LOADGEN_POLL_US=0 leaves the yield alone.
"""

import os
import time

_poll_s = float(os.environ.get("LOADGEN_POLL_US", "50")) / 1e6
if _poll_s > 0:
    os.sched_yield = lambda: time.sleep(_poll_s)
