"""A development collector for tests and for trying things out.

    from fastemit.testing import Collector

    with Collector() as collector:
        emitter = Emitter(collector.url)
        ...
        events = collector.wait_for(3)

`Collector` is a real HTTP server on a free loopback port that keeps what it receives, answers as it is told
to, and judges events as Snowplow Micro does. It needs nothing but the standard library.
"""

from fastemit.testing._collector import Collector
from fastemit.testing._journal import BadEvent
from fastemit.testing._request import Headers, Request

__all__ = ["BadEvent", "Collector", "Headers", "Request"]
