"""`Snowplow`: trackers by namespace, like `snowplow_tracker.Snowplow`, but with fastemit's tracker and emitter.

Importing this module imports snowplow_tracker.
"""

from __future__ import annotations

from fastemit.emitter_configuration import REFERENCE_SETTINGS, EmitterConfiguration, arguments_of
from fastemit.emitters import Emitter
from fastemit.stats import logger
from fastemit.tracker import Tracker
from fastemit.typing import Method

# Imported after `fastemit.tracker`, which keeps this import from changing the log, and says what to install without it.
from snowplow_tracker.emitter_configuration import EmitterConfiguration as ReferenceConfiguration  # isort: skip
from snowplow_tracker.snowplow import Snowplow as ReferenceSnowplow  # isort: skip
from snowplow_tracker.subject import Subject  # isort: skip
from snowplow_tracker.tracker import Tracker as ReferenceTracker  # isort: skip
from snowplow_tracker.tracker_configuration import TrackerConfiguration  # isort: skip

__all__ = ["Emitter", "EmitterConfiguration", "Method", "Snowplow", "Tracker", "TrackerConfiguration", "logger"]

_TRACKER_SETTINGS = ("encode_base64", "json_encoder")
#: The trackers, for a later version of snowplow_tracker that keeps its own in another way.
_own_trackers: dict[str, ReferenceTracker] = {}


def _trackers() -> dict[str, ReferenceTracker]:
    """The trackers by namespace. They are those of `snowplow_tracker.Snowplow`, so that either class finds them all."""
    # Looked up at each call, because its `reset` makes a new dict.
    shared = getattr(ReferenceSnowplow, "_trackers", None)
    return shared if isinstance(shared, dict) else _own_trackers


class Snowplow:
    """The trackers of this process, by namespace: the same ones that `snowplow_tracker.Snowplow` has.

    A program may use both classes. Each of them finds, removes and resets the trackers of the other, and a namespace
    that is taken in one is taken in both.

    Thread safety: every method may be called from any thread. Each method changes the registry by one operation of a
    dict, which is atomic. There is no lock, because a fork could leave it locked in the child.
    """

    @staticmethod
    def create_tracker(
        namespace: str,
        endpoint: str,
        method: Method = "post",
        app_id: str | None = None,
        subject: Subject | None = None,
        tracker_config: TrackerConfiguration | None = None,
        emitter_config: EmitterConfiguration | ReferenceConfiguration | None = None,
    ) -> Tracker:
        """Make a `fastemit.Tracker` with an `Emitter` inside, and register it.

        Args:
            namespace: the tracker's name, sent with each event.
            endpoint: the collector, as for `Emitter`.
            method: "post" or "get".
            app_id: the application's name, sent with each event.
            subject: who the events are about, if they do not say so themselves.
            tracker_config: how the tracker encodes JSON.
            emitter_config: settings for the emitter; those that are not set are the emitter's own.

        Raises:
            TypeError: the namespace is taken, or an argument is of a wrong type.
            ValueError: a setting is not allowed; see `Emitter`.
        """
        if not isinstance(namespace, str):
            raise TypeError(f"namespace must be a string, not {type(namespace).__name__} {namespace!r}")
        tracker_config = TrackerConfiguration() if tracker_config is None else tracker_config
        emitter_config = EmitterConfiguration() if emitter_config is None else emitter_config
        _check_attributes("tracker_config", tracker_config, _TRACKER_SETTINGS, "a TrackerConfiguration")
        _check_attributes("emitter_config", emitter_config, REFERENCE_SETTINGS, "an EmitterConfiguration")
        tracker = Tracker(
            namespace=namespace,
            emitters=Emitter(endpoint, method=method, **arguments_of(emitter_config)),
            app_id=app_id,
            subject=subject,
            encode_base64=tracker_config.encode_base64,
            json_encoder=tracker_config.json_encoder,
        )
        Snowplow.add_tracker(tracker)
        return tracker

    @classmethod
    def add_tracker(cls, tracker: ReferenceTracker) -> ReferenceTracker:
        """Register a tracker under its namespace, and return it.

        Any `snowplow_tracker.Tracker` may be given. Anything else is logged, and None is returned, as in
        snowplow_tracker.

        Raises:
            TypeError: one of the two classes has a tracker with this namespace.
        """
        if not isinstance(tracker, ReferenceTracker):
            logger.info("Tracker not provided.")
            return None
        namespace = tracker.get_namespace()
        trackers = _trackers()
        # The second half decides between threads that come at the same time: one of them is first.
        if namespace in trackers or trackers.setdefault(namespace, tracker) is not tracker:
            raise TypeError(f"Tracker with this namespace already exists: {namespace!r}")
        logger.info("Tracker with namespace: '%s' added to Snowplow", namespace)
        return tracker

    @classmethod
    def get_tracker(cls, namespace: str) -> ReferenceTracker | None:
        """The tracker of this namespace, or None."""
        return _trackers().get(namespace)

    @classmethod
    def remove_tracker(cls, tracker: ReferenceTracker) -> None:
        """Forget the tracker of this one's namespace. Its emitter goes on, and can still be used."""
        cls.remove_tracker_by_namespace(tracker.get_namespace())

    @classmethod
    def remove_tracker_by_namespace(cls, namespace: str) -> None:
        """Forget the tracker of this namespace, if there is one. Its emitter goes on, and can still be used."""
        if _trackers().pop(namespace, None) is None:
            logger.info("Tracker with namespace: '%s' does not exist", namespace)
        else:
            logger.info("Tracker with namespace: '%s' removed from Snowplow", namespace)

    @classmethod
    def reset(cls) -> None:
        """Forget all trackers, those of `snowplow_tracker.Snowplow` too. Their emitters go on.

        An emitter that is no longer referenced sends what it has.
        """
        _trackers().clear()


def _check_attributes(name: str, value: object, attributes: tuple[str, ...], allowed: str) -> None:
    if isinstance(value, type) or not all(hasattr(value, attribute) for attribute in attributes):
        raise TypeError(f"{name} must be None or {allowed}, not {type(value).__name__} {value!r}")
