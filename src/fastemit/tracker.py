"""`Tracker`: `snowplow_tracker.Tracker`, with the same payloads made by a fraction of the work.

Importing this module imports snowplow_tracker.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

# snowplow_tracker calls logging.basicConfig() when it is imported, which does nothing while the root logger has a
# handler: without this, using fastemit would change what the whole process logs.
_guard = logging.NullHandler()
logging.getLogger().addHandler(_guard)
try:
    from snowplow_tracker import _version
    from snowplow_tracker import tracker as reference
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] != "snowplow_tracker":
        raise
    raise ImportError(
        'fastemit.Tracker and fastemit.Snowplow need the package snowplow-tracker: pip install "fastemit[tracker]"',
        name=error.name,
    ) from error
finally:
    logging.getLogger().removeHandler(_guard)

#: Versions of snowplow_tracker whose every step is known to the native part. With any other, the code that runs is
#: snowplow_tracker's own, since a payload that is a little different is worse than a slow one.
KNOWN_VERSIONS: Final = frozenset({"1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4", "1.1.0"})
_known = _version.__version__ in KNOWN_VERSIONS

if TYPE_CHECKING or _known:
    from fastemit import _payload
    from fastemit._payload import PayloadMaker
else:

    class PayloadMaker:
        """Nothing is made otherwise than by snowplow_tracker."""


class Tracker(PayloadMaker, reference.Tracker):
    """`snowplow_tracker.Tracker`, with the same constructor, methods, payloads and errors, in less time.

    Takes any emitter and any event, those of your own included. A function of snowplow_tracker that is overridden or
    patched is called where snowplow_tracker calls it.

    Thread safety: as `snowplow_tracker.Tracker`: any thread may call `track`, and emitters and subjects are to be set
    before.
    """

    if TYPE_CHECKING or _known:

        @staticmethod
        def get_uuid() -> str:
            """A random UUID of version 4, from the system's generator: never the same one again, also across a fork."""
            return _payload.new_id()


if TYPE_CHECKING or _known:
    _payload.serve(Tracker)
