"""`Tracker`: `snowplow_tracker.Tracker` with the same payloads, in less time.

Importing this module imports snowplow_tracker.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

# snowplow_tracker calls logging.basicConfig() when it is imported. That does nothing while the root logger has a
# handler. Without this, the import of fastemit would change what the whole process logs.
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

#: The versions of snowplow_tracker that the native part knows in every step. With any other version the code of
#: snowplow_tracker runs, because a payload that is a little different is worse than a slow one.
KNOWN_VERSIONS: Final = frozenset({"1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4", "1.1.0"})
_known = _version.__version__ in KNOWN_VERSIONS

if TYPE_CHECKING or _known:
    from fastemit import _native as _native
    from fastemit import _payload
    from fastemit._payload import PayloadMaker
else:

    class PayloadMaker:
        """Leave everything to snowplow_tracker."""


class Tracker(PayloadMaker, reference.Tracker):
    """`snowplow_tracker.Tracker`, with the same constructor, methods, payloads and errors, in less time.

    It takes any emitter and any event, including your own. If a function of snowplow_tracker is overridden or patched,
    it is called where snowplow_tracker calls it.

    Thread safety: that of `snowplow_tracker.Tracker`. Any thread may call `track`. Set emitters and subjects before.
    """

    if TYPE_CHECKING or _known:

        @staticmethod
        def get_uuid() -> str:
            """A random UUID of version 4 from the system's generator. A forked child never repeats its parent's."""
            return _payload.new_id()


if TYPE_CHECKING or _known:
    _payload.serve(Tracker)
