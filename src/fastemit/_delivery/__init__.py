"""The delivery: when events are sent, and by whom.

Here are the sender threads and their wake-ups, the schedule with its backoff and timers, the passes that take a batch,
send it and settle it, and what happens at the bound of the buffer. It knows threads, time and policy, and neither HTTP
nor Redis: it takes batches from a queue and gives them to a transport. An emitter opens one `Delivery`, and has its
public methods from `Draining`. Only the names below are for other packages.
"""

from fastemit._delivery.controls import Draining, Timer, unmade
from fastemit._delivery.delivery import Delivery
from fastemit._delivery.overrides import NAMES as HOOK_NAMES
from fastemit._delivery.overrides import Hooks
from fastemit._delivery.reporting import Reporter, loaded
from fastemit._delivery.retry import POISON_AFTER, Backoff, Verdict, is_poison_sign, judge, retry_after_seconds
from fastemit._delivery.schedule import FOREVER
from fastemit._delivery.waiting import Inbox

__all__ = [
    "FOREVER",
    "HOOK_NAMES",
    "POISON_AFTER",
    "Backoff",
    "Delivery",
    "Draining",
    "Hooks",
    "Inbox",
    "Reporter",
    "Timer",
    "Verdict",
    "is_poison_sign",
    "judge",
    "loaded",
    "retry_after_seconds",
    "unmade",
]
