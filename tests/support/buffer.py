"""What the tests of `fastemit._buffer` share: sizes worked out without it, and processes of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastemit._batch import Batch
from fastemit._buffer import EventBuffer

SCHEMA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
PREFIX = f'{{"schema":"{SCHEMA}","data":['.encode()
# The last event's comma is counted with the event, and becomes the bracket.
OVERHEAD = len(PREFIX) + len("}")
UNSTAMPED = "0" * 13
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
# A build that checks all its invariants at every step is slow with many events.
CHECKED = os.environ.get("FASTEMIT_DEBUG") == "1"
DEADLINE = 20.0


def make_buffer(
    capacity: int = 1000,
    max_bytes: int = 1_000_000,
    max_request_bytes: int = 1024,
    batch_size: int = 10,
    byte_limit: int | None = None,
    files: bool = False,
) -> EventBuffer:
    return EventBuffer(capacity, max_bytes, max_request_bytes, batch_size, byte_limit, files=files)


def stamped(payload: Mapping[Any, Any], stm: str = UNSTAMPED) -> dict[str, str]:
    """`payload` as it should arrive."""
    return {**{name: str(value) for name, value in payload.items()}, "stm": stm}


def size_of(payload: Mapping[Any, Any]) -> int:
    """Bytes that `payload` takes in a body, its comma or the bracket in place of it included."""
    return len(json.dumps(stamped(payload), separators=(",", ":"), ensure_ascii=False).encode()) + 1


def of_size(size: int) -> dict[str, str]:
    """A payload that takes `size` bytes in a body."""
    return {"x": "y" * (size - size_of({"x": ""}))}


def events_in(body: bytes | memoryview) -> list[dict[str, str]]:
    """The events of a request body, which must be the envelope and nothing else."""
    document = json.loads(bytes(body))
    assert list(document) == ["schema", "data"]
    assert document["schema"] == SCHEMA
    data: list[dict[str, str]] = document["data"]
    return data


def must_take(buffer: EventBuffer, max_bytes: int | None = None, min_events: int = 1) -> Batch:
    batch = buffer.take(max_bytes, min_events)
    assert batch is not None
    return batch


def put(buffer: EventBuffer, *payloads: Mapping[Any, Any]) -> None:
    for payload in payloads:
        assert isinstance(buffer.append(payload), int)


def numbered(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"n": str(number)} for number in range(first, first + count)]


def numbers(events: list[dict[str, str]]) -> list[int]:
    return [int(event["n"]) for event in events]


def drain(buffer: EventBuffer) -> list[dict[str, str]]:
    """Send everything; the events in the order of their bodies."""
    events = []
    while (batch := buffer.take()) is not None:
        with batch.body() as body:
            events += events_in(body)
        batch.sent()
    return events


def run_threads(functions: Sequence[Callable[[], None]]) -> None:
    """Run each in a thread of its own and wait for all; raises what the first of them that failed has raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    deadline = time.monotonic() + DEADLINE
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            assert time.monotonic() < deadline, "a thread has not ended in time"
            thread.join(0.01)
    if errors:
        raise errors[0]


def run_script(source: str) -> Any:
    """Run `source` in a new interpreter; what it prints, as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, f"exit status {run.returncode}\n{run.stderr}"
    return json.loads(run.stdout)


def in_forked_child(function: Callable[[], Any]) -> Any:
    """Call `function` in a forked child; what it returns, by way of JSON."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child here runs no lock that another thread could hold.
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            answer = json.dumps({"value": function()})
        except BaseException as error:  # noqa: BLE001
            answer = json.dumps({"error": repr(error)})
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], DEADLINE)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        answer = os.read(reader, 65536).decode()
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with status {status}"
    result = json.loads(answer)
    assert "error" not in result, result["error"]
    return result["value"]
