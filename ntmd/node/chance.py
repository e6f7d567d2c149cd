"""How unlikely silence is, if it were loss alone: what is weighed before a link is left."""

from __future__ import annotations

import math

from ntmd.proto.timing import LINK_LOSS_LEAST

CERTAIN = 9.0  # nats: that so much was lost by chance has a probability below e^-9


def reckoned(loss: float) -> float:
    """The loss (0 to 1) that silence is weighed with: more than what was seen, for it changes."""
    return min(max(loss * 1.5, LINK_LOSS_LEAST), 0.5)


def nats(loss: float) -> float:
    """What one challenge without an answer weighs where this share is lost each way."""
    return -math.log(1 - (1 - reckoned(loss)) ** 2)
