"""Overhears what an engine tells its owner, for the trace; changes nothing.

The wire shows sealed bytes only, so the order of messages is read where they come out of the
production engine: the same list object goes on to the core, unchanged.
"""

from __future__ import annotations

from typing import Any

from ntmd.proto.events import MessageReceived, Replied
from tests.sim.process import Process


def listen(process: Process) -> None:
    """Write every message that ``process``'s present core receives into the trace as "heard"."""
    if not process.host.world.trace.keep:
        return
    core = process.core
    engine = core.engine if hasattr(core, "engine") else core.common.engine
    take = engine.take_outputs

    def overhear() -> list[Any]:
        outputs: list[Any] = take()
        for output in outputs:
            if isinstance(output, MessageReceived):
                process.trace("heard", output.message)
            elif isinstance(output, Replied):
                process.trace("heard", output.reply)
        return outputs

    engine.take_outputs = overhear
