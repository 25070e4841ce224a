"""What the delivery knows of its neighbours: the queue that it takes events from, and the transport that sends them.

The protocols here are all that the two sides know of each other. The native buffer, the buffer over a user's store and
the source of the Redis worker are queues. HTTP, a user's session, Celery and a Redis list are transports. Also here is
what passes between them: the outcome of a request, and the means to cut a request off. Every package may import the
names below.
"""

from fastemit._interfaces.queues import Encoded, EncodedEvent, EventBatch, EventQueue, Keeping, Sink, Sleeper
from fastemit._interfaces.transports import (
    ANSWER_LIMIT,
    CONTENT_TYPE,
    DEFAULT_TIMEOUT,
    Cutoff,
    Outcome,
    RequestTransport,
    Transport,
)

__all__ = [
    "ANSWER_LIMIT",
    "CONTENT_TYPE",
    "DEFAULT_TIMEOUT",
    "Cutoff",
    "Encoded",
    "EncodedEvent",
    "EventBatch",
    "EventQueue",
    "Keeping",
    "Outcome",
    "RequestTransport",
    "Sink",
    "Sleeper",
    "Transport",
]
