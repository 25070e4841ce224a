"""What a worker does with a batch that came to it through a broker: send it once, judge, and say what is left.

A batch travels as the text that is to be sent, together with its `Destination`: where to, and by which rules. Nothing
here knows which broker it was, or how what is left gets its next attempt.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson

from fastemit._delivery import POISON_AFTER, Verdict, is_poison_sign, judge, retry_after_seconds
from fastemit._interfaces import Outcome, Transport
from fastemit._process import sockets
from fastemit._settings import checks
from fastemit._time import wall_clock
from fastemit._transport import Endpoint, HttpTransport
from fastemit.stats import ThrottledLog, described
from fastemit.typing import Method

#: Ends each event of a POST body. A value cannot hold it: quotes inside of one are escaped.
_END_OF_EVENT: Final = re.compile(rb'"stm":"\d{13}"\}')
_END_OF_QUERY: Final = re.compile(rb"(?:^|(?<=&))stm=\d{13}$")
#: Connections to one destination that are kept open. Most pools of workers have fewer tasks under way at once.
_CONNECTIONS: Final = 1000
#: Destinations whose connections one process keeps. One more pushes out the oldest.
_DESTINATIONS: Final = 32


@dataclass(frozen=True)
class Destination:
    """Where a batch goes and by which rules; all of it can be written as JSON.

    Attributes:
        endpoint: the collector's address, user and password included.
        method: "post" or "get".
        timeout: (connect, read) in seconds; None for the default.
        headers: added to each request.
        ca_certs: file or directory of certificate authorities, on the worker's machine; None for the environment's.
        max_delay: longest time between attempts, in seconds.
        retry_codes: exceptions to the rules of `retry.judge`.
        max_bytes: a single event in a longer body is given up once an answer or a read timeout came.
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
        """As what JSON has: `read` makes it a `Destination` again."""
        # Of a copy, which is made in one step: the user may change them meanwhile.
        codes = {str(code): retry for code, retry in self.retry_codes.copy().items()}
        return {**asdict(replace(self, retry_codes={})), "retry_codes": codes}

    @classmethod
    def read(cls, value: Any) -> Destination:
        """What `written` gave, checked; fields that are not known here are another version's, and left out.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
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
    """An `Endpoint` that was written, checked."""
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


@dataclass
class Part:
    """Events that are sent together.

    Attributes:
        body: the body of a POST, or the query string of a GET.
        server_errors: how many times it was answered so as a poisonous event is.
    """

    body: bytes
    server_errors: int = 0

    def ends(self) -> list[int]:
        return [match.end() for match in _END_OF_EVENT.finditer(self.body)]

    def __len__(self) -> int:
        """Its events; 1 for what was not written by an emitter, which is sent as it is."""
        return len(self.ends()) or 1

    def stamped(self, query: bool, milliseconds: int) -> bytes:
        """The body with a new `stm` in each event."""
        if query:
            return _END_OF_QUERY.sub(b"stm=%013d" % milliseconds, self.body)
        return _END_OF_EVENT.sub(b'"stm":"%013d"}' % milliseconds, self.body)

    def halves(self) -> tuple[Part, Part]:
        """Two parts with the same events, in their order. It must have two events or more."""
        ends = self.ends()
        middle, last = ends[len(ends) // 2 - 1], ends[-1]
        start = self.body.index(b'"data":[') + len(b'"data":[')
        head, tail = self.body[:start], self.body[last:]
        # Between two events there is a comma.
        first, second = self.body[start:middle], self.body[middle + 1 : last]
        return Part(head + first + tail, self.server_errors), Part(head + second + tail, self.server_errors)


@dataclass
class Left:
    """What is to be sent later.

    Attributes:
        parts: in order; each is to be sent by itself.
        why: what went wrong, for a person.
        asked: seconds that the collector asked to wait, or None.
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
        self._transports: dict[bytes, Transport] = {}
        self._inherited: list[object] = []

    def _here(self) -> None:
        """Start over in a forked child: nothing that was inherited is used or closed."""
        if self._process != os.getpid():
            sockets.detach_inherited()
            self._inherited.append(self._transports)
            self._log.forget()
            self._transports, self._log = {}, ThrottledLog()
            self._process = os.getpid()

    def _transport(self, to: Destination) -> Transport:
        """The transport for this destination, with connections that wait for the next batch."""
        key = orjson.dumps([asdict(to.endpoint), to.timeout, to.headers, to.ca_certs])
        transport = self._transports.get(key)
        if transport is None:
            new = HttpTransport(to.endpoint, to.timeout, _CONNECTIONS, to.headers, to.ca_certs)
            # Another thread may have been quicker.
            transport = self._transports.setdefault(key, new)
            while len(self._transports) > _DESTINATIONS:
                self._transports.pop(next(iter(self._transports.copy())), None)
        return transport

    def carry(self, part: Part, to: Destination) -> Left | None:
        """Send a part, its halves where it proves too large; what is kept, or None. Nothing is raised."""
        self._here()
        self._log.write()  # what was held back: between two tasks nothing runs that could
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
            told = f"{why} from {to.endpoint.url} ({len(part)} events, {len(part.body)} bytes)"
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
        """A part to be sent again: as halves where it may be too much for the line, or hold a poisonous event."""
        if is_poison_sign(outcome.status):
            part.server_errors += 1
        if len(part) > 1 and (outcome.timed_out or part.server_errors >= POISON_AFTER):
            return list(part.halves())
        return [part]

    def tell(self) -> None:
        """Log what is held back, at the end of a process."""
        self._here()
        self._log.flush()

    def refused(self, what: str) -> None:
        """Something came that is no batch."""
        self._here()
        self._log.add("tasks dropped (not a batch of fastemit's)", what)
