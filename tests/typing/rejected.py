"""Wrong uses: each line is refused by `mypy --strict` and by `pyright`, for the reason that its comment names.

A comment that a checker does not need is an error to it (`warn_unused_ignores`, `reportUnnecessaryTypeIgnoreComment`),
so that a use which is accepted fails the check. Read by type checkers, and not run.
"""

from __future__ import annotations

from typing import Any

from snowplow_tracker.tracker import Tracker

import fastemit
from fastemit import AsyncEmitter, Emitter, EmitterConfiguration, InMemoryEventStore, Snowplow
from fastemit.testing import Collector
from fastemit.typing import EmitterProtocol, PayloadDict, PayloadDictList

# -- arguments of emitters -------------------------------------------------------------------------------------------

Emitter()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Emitter(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", "ftp")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", port=b"80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", method="put")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", batch_size=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", buffer_size=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Emitter("x", on_success="print")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", buffer_size=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Emitter("x", request_timeout=(1, 2, 3))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", request_timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", max_retry_delay_seconds=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", custom_retry_codes={"500": True})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
Emitter("x", custom_retry_codes=[500])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", overflow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", background=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", headers={"X": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
Emitter("x", ca_certs=b"x.pem")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", event_store=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", thread_count=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
AsyncEmitter("x", thread_count="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# -- callbacks -------------------------------------------------------------------------------------------------------


def no_arguments() -> None: ...


def one_argument(events: PayloadDictList) -> None: ...


def a_count(count: int) -> None: ...


Emitter("x", on_success=no_arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", on_success=a_count)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Emitter("x", on_failure=one_argument)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# -- calls and attributes --------------------------------------------------------------------------------------------


def calls(emitter: Emitter) -> None:
    emitter.input()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    emitter.input("e=pv")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    emitter.input([("e", "pv")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    emitter.input({1: "pv"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    emitter.flush(False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    emitter.sync_flush("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    emitter.drain(1, retry=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    emitter.drain(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    emitter.set_flush_timer()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    emitter.http_post(b"{}")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    emitter.send_events({"e": "pv"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    emitter.shutdown()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.endpoint = "y"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.retry_delay = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.batch_size = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.on_failure = one_argument  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.custom_retry_codes = [500]  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.stats().requests = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    emitter.close("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(fastemit.Emiter)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


class Bytes(Emitter):
    def http_post(self, data: bytes) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return 200

    def flush(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return True


# -- trackers and stores ---------------------------------------------------------------------------------------------


class OnlyInput:
    """The tracker calls it, but its type says that it wants more."""

    def input(self, payload: PayloadDict) -> None: ...


class NoCleanup:
    def add_event(self, payload: PayloadDict) -> bool:
        return True

    def get_events_batch(self) -> PayloadDictList:
        return []

    def size(self) -> int:
        return 0


class WrongCleanup(NoCleanup):
    def cleanup(self, batch: PayloadDictList) -> None: ...


def trackers_and_stores(emitter: Emitter) -> None:
    Tracker(emitter)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    protocol: EmitterProtocol = OnlyInput()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    Emitter("x", event_store=protocol)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Emitter("x", event_store=NoCleanup())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Emitter("x", event_store=WrongCleanup())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Emitter("x", event_store=InMemoryEventStore)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    InMemoryEventStore(10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    InMemoryEventStore().add_event("e=pv")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- configuration and Snowplow --------------------------------------------------------------------------------------


def configuration(config: EmitterConfiguration) -> None:
    EmitterConfiguration("10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    EmitterConfiguration(endpoint="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    EmitterConfiguration(thread_count=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    EmitterConfiguration(overflow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    EmitterConfiguration(event_store=NoCleanup())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    config.batch_size = "10"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    config.overflow = "drop"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    config.on_success = a_count  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    config.custom_retry_codes = [500]  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    config.custom_retry_codes["500"] = True  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    config.set_retry_code("500")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    config.set_retry_code(500, "yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def registry(settings: dict[str, Any]) -> None:
    Snowplow.create_tracker("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Snowplow.create_tracker("a", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Snowplow.create_tracker("a", "x", "put")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Snowplow.create_tracker("a", "x", emitter_config=settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Snowplow.add_tracker(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Snowplow.remove_tracker("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Snowplow.get_tracker("a").flush()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


# -- the development collector ---------------------------------------------------------------------------------------


def development(collector: Collector) -> None:
    collector.respond("503")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    collector.respond(503, retries=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    collector.events = []  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
