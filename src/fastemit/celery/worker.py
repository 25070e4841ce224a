"""What a worker does with a batch that came through a broker: it sends the batch once, and returns what is left.

A batch travels as the text that is to be sent, together with its `Destination`, which says where to send it and by
which rules. Nothing here knows which broker it was, or how the rest gets its next attempt.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fastemit._batch import BEFORE_EVENTS, END_OF_EVENT, END_OF_QUERY, NO_TIME
from fastemit._delivery import POISON_AFTER, Verdict, is_poison_sign, judge, retry_after_seconds
from fastemit._interfaces import Outcome, RequestTransport
from fastemit._process import sockets
from fastemit._settings import checks
from fastemit._time import wall_clock
from fastemit._transport import Endpoint, HttpTransport
from fastemit._words import counted
from fastemit.stats import ThrottledLog, described
from fastemit.typing import Method


def _at_any_time(stamped: bytes) -> bytes:
    """A pattern that finds this text with any time in its `stm`."""
    return re.escape(stamped).replace(NO_TIME, rb"\d{%d}" % len(NO_TIME))


#: Ends each event of a POST body. No value can contain it, because quotes inside of a value are escaped.
_END_OF_EVENT: Final = re.compile(_at_any_time(END_OF_EVENT))
_END_OF_QUERY: Final = re.compile(rb"(?:^|(?<=&))%s$" % _at_any_time(END_OF_QUERY))
#: Each event of a POST body has this once.
_STM: Final = END_OF_EVENT.partition(NO_TIME)[0].decode("ascii")
#: The most connections to one destination that are kept open. Nearly all pools run fewer tasks at once.
_CONNECTIONS: Final = 1000
#: The most destinations whose connections one process keeps. One more replaces the oldest.
_DESTINATIONS: Final = 32


@dataclass(frozen=True)
class Destination:
    """Where a batch goes, and by which rules. All of it can be written as JSON.

    Attributes:
        endpoint: the collector's address, user and password included.
        method: "post" or "get".
        timeout: (connect, read) in seconds; None for the default.
        headers: added to each request.
        ca_certs: file or directory of certificate authorities on the worker's machine. None for those that the
            environment names.
        max_delay: longest time between attempts, in seconds.
        retry_codes: exceptions to the rules of `retry.judge`.
        max_bytes: an event that alone makes a longer body is dropped after its first answer or read timeout.
    """

    endpoint: Endpoint
    method: Method
    timeout: tuple[float, float] | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    ca_certs: str | None = None
    max_delay: float = 60.0
    retry_codes: dict[int, bool] = field(default_factory=dict)
    max_bytes: int = 1_000_000

    def written(self) -> dict[str, Any]:
        """Return it as a dict for JSON. `read` makes a `Destination` of that again."""
        # The copy is made in one step, because the user may change the codes meanwhile.
        codes = {str(code): retry for code, retry in self.retry_codes.copy().items()}
        return {
            **vars(self),
            "endpoint": vars(self.endpoint).copy(),
            "headers": self.headers.copy(),
            "retry_codes": codes,
        }

    @classmethod
    def read(cls, value: Any) -> Destination:
        """Check what `written` returned, and make a `Destination` of it. Unknown fields of other versions are ignored.

        Raises:
            KeyError, TypeError, ValueError: `written` did not return this.
        """
        if not isinstance(value, Mapping):
            raise TypeError(f"a destination must be a mapping, not {type(value).__name__}")
        method: Any = checks.one_of("method", value["method"], ("post", "get"))
        ca_certs = value.get("ca_certs")
        if ca_certs is not None and not isinstance(ca_certs, str):
            raise TypeError(f"ca_certs must be a path, not {type(ca_certs).__name__}")
        return cls(
            _address(value["endpoint"]),
            method,
            checks.timeout_pair("timeout", value.get("timeout")),
            checks.headers("headers", value.get("headers")),
            ca_certs,
            checks.seconds("max_delay", value.get("max_delay", 60.0)),
            checks.retry_codes("codes", {int(code): retry for code, retry in (value.get("retry_codes") or {}).items()}),
            checks.integer("max_bytes", value.get("max_bytes", 1_000_000)),
        )


def _address(value: Any) -> Endpoint:
    """Check an address that `written` returned, and make an `Endpoint` of it."""
    scheme, host, port, path, username, password = (
        value[name] for name in ("scheme", "host", "port", "path", "username", "password")
    )
    checks.one_of("scheme", scheme, ("http", "https"))
    if port is not None:
        checks.integer("port", port, 1, 65535)
    for text in (host, path, username or "", password or ""):
        if not isinstance(text, str):
            raise TypeError(f"an address is made of strings, not {type(text).__name__}")
    if not host or not path.startswith("/"):
        raise ValueError("an address has a host and a path")
    return Endpoint(scheme, host, port, path, username, password)


def shown(body: str, host: str) -> str:
    """The text by which logs, task events and monitors show a batch: how many events, for which host, and no more."""
    # A query string is one event.
    count = body.count(_STM) or 1
    return f"<{counted(count, 'event')} for {host}>"


def shown_arguments(arguments: Any) -> str:
    """`shown` for a task's arguments. Anybody may have written these, so nothing is raised."""
    try:
        return shown(arguments["body"], Destination.read(arguments["to"]).endpoint.host)
    except (AttributeError, KeyError, TypeError, ValueError):
        return "<not a batch of fastemit's>"


@dataclass
class Part:
    """Events that are sent together.

    Attributes:
        body: the body of a POST, or the query string of a GET.
        server_errors: how many answers were of the kind that an event gets which makes the collector fail.
    """

    body: bytes
    server_errors: int = 0

    def ends(self) -> list[int]:
        return [match.end() for match in _END_OF_EVENT.finditer(self.body)]

    def __len__(self) -> int:
        """The number of events. It is 1 for a body that no emitter has written; such a body is sent as it is."""
        return len(self.ends()) or 1

    def stamped(self, query: bool, milliseconds: int) -> bytes:
        """The body with a new `stm` in each event."""
        pattern, end = (_END_OF_QUERY, END_OF_QUERY) if query else (_END_OF_EVENT, END_OF_EVENT)
        return pattern.sub(end.replace(NO_TIME, b"%0*d" % (len(NO_TIME), milliseconds)), self.body)

    def halves(self) -> tuple[Part, Part]:
        """Return two parts with the same events in the same order. There must be two events or more."""
        ends = self.ends()
        middle, last = ends[len(ends) // 2 - 1], ends[-1]
        start = self.body.index(BEFORE_EVENTS) + len(BEFORE_EVENTS)
        head, tail = self.body[:start], self.body[last:]
        # Between two events there is a comma.
        first, second = self.body[start:middle], self.body[middle + 1 : last]
        return Part(head + first + tail, self.server_errors), Part(head + second + tail, self.server_errors)


@dataclass
class Left:
    """The part of a batch that must be sent later.

    Attributes:
        parts: in order; each is a request of its own.
        why: what went wrong, for people.
        asked: seconds that the collector asked us to wait, or None.
    """

    parts: list[Part]
    why: str
    asked: float | None = None


class Relay:
    """The connections of one process to the collectors that it sends to.

    Thread safety: any number of threads may call `carry`. Each step on the connections is one operation of a dict.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._log = ThrottledLog()
        self._transports: dict[bytes, RequestTransport] = {}
        self._inherited: list[object] = []

    def _here(self) -> None:
        """Start over in a forked child. Nothing that the child has inherited is used or closed."""
        if self._process != os.getpid():
            sockets.detach_inherited()
            self._inherited.append(self._transports)
            self._log.forget()
            self._transports, self._log = {}, ThrottledLog()
            self._process = os.getpid()

    def _transport(self, to: Destination) -> RequestTransport:
        """The transport for this destination. Its connections stay open for the next batch."""
        key = orjson.dumps([vars(to.endpoint), to.timeout, to.headers, to.ca_certs])
        transport = self._transports.get(key)
        if transport is None:
            new = HttpTransport(to.endpoint, to.timeout, _CONNECTIONS, to.headers, to.ca_certs)
            # Another thread may have been quicker.
            transport = self._transports.setdefault(key, new)
            while len(self._transports) > _DESTINATIONS:
                self._transports.pop(next(iter(self._transports.copy())), None)
        return transport

    def carry(self, part: Part, to: Destination) -> Left | None:
        """Send a part, or its halves if it proves too large. Returns what is left, or None. Nothing is raised."""
        self._here()
        self._log.write()  # writes lines that are due, because nothing runs between two tasks that could
        stack = [part]
        while stack:
            try:
                part = stack[-1]
                outcome = self._send(part, to)
                verdict = judge(outcome.status, len(part), to.retry_codes)
                if verdict is Verdict.SPLIT:
                    second_first = part.halves()[::-1]
                    stack.pop()
                    stack.extend(second_first)
                    continue
            except Exception as error:  # noqa: BLE001 - a soft time limit, no memory, authorities that are not there
                outcome, verdict = Outcome(error=described(error)), Verdict.KEEP
            stack.pop()
            why = outcome.error or f"status {outcome.status}"
            told = f"{why} from {to.endpoint.url} ({counted(len(part), 'event')}, {len(part.body)} bytes)"
            if verdict is Verdict.SENT:
                continue
            if verdict is Verdict.REJECTED:
                self._log.add("events dropped (rejected)", told, len(part))
                continue
            self._log.add("request failed", told)
            if len(part) == 1 and len(part.body) > to.max_bytes and (outcome.status is not None or outcome.timed_out):
                self._log.add("events dropped (oversize)", told)
                continue
            asked = retry_after_seconds(outcome.status, outcome.retry_after, wall_clock())
            return Left([*self._kept(part, outcome), *stack[::-1]], why, asked)
        return None

    def _send(self, part: Part, to: Destination) -> Outcome:
        transport = self._transport(to)
        query = to.method == "get"
        body = part.stamped(query, time.time_ns() // 1_000_000)
        return transport.get(body.decode("ascii")) if query else transport.post(body)

    @staticmethod
    def _kept(part: Part, outcome: Outcome) -> list[Part]:
        """Return a part that must be sent again, as halves if it was too slow or may have an event that does harm."""
        if is_poison_sign(outcome.status):
            part.server_errors += 1
        if len(part) > 1 and (outcome.timed_out or part.server_errors >= POISON_AFTER):
            return list(part.halves())
        return [part]

    def tell(self) -> None:
        """Write all lines that the log holds back, at the end of a process."""
        self._here()
        self._log.flush()

    def kept(self, part: Part, to: Destination, why: str) -> None:
        """Log a batch that this worker does not send. It is not lost."""
        self._here()
        self._log.add("events not sent", f"{why}: {to.endpoint.url} ({counted(len(part), 'event')})", len(part))

    def refused(self, what: str) -> None:
        """Log a task that holds no batch."""
        self._here()
        self._log.add("tasks dropped (not a batch of fastemit's)", what)
