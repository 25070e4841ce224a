"""What the collector answers: one scripted answer, its checks, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fastemit.testing._request import Request

Status = int | Callable[[Request], int]

_REASONS = {int(status): status.phrase for status in HTTPStatus}
_BODILESS = (204, 304)


@dataclass(slots=True)
class Answer:
    """One entry of the script; `Collector.respond` says what the fields mean."""

    status: Status = 200
    headers: tuple[tuple[str, str], ...] = ()
    #: None is "ok" for a 2xx, and the reason phrase for any other status.
    body: bytes | None = None
    delay: float = 0.0
    drip: float = 0.0
    interim: tuple[int, ...] = ()
    close: bool = False
    reset: bool = False
    hang_up: bool = False
    hang: bool = False
    close_after_headers: bool = False
    accept: bool | None = None
    #: How many requests it is still for; None for all that come.
    times: int | None = 1
    #: Whether the outcome is known when the request arrives.
    is_immediate: bool = field(init=False)

    def __post_init__(self) -> None:
        """Raise `TypeError` or `ValueError` naming the field, its value and what is allowed."""
        if not callable(self.status):
            check_status("status", self.status)
        for name in ("delay", "drip"):
            check_seconds(name, getattr(self, name))
        for name in ("close", "reset", "hang_up", "hang", "close_after_headers"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r}: True or False is expected")
        if self.accept is not None and not isinstance(self.accept, bool):
            raise TypeError(f"accept={self.accept!r}: True, False or None is expected")
        if self.times is not None:
            check_count("times", self.times, 1)
        if self.body is not None and not isinstance(self.body, bytes):
            raise TypeError(f"body={self.body!r}: bytes or None are expected")
        for status in self.interim:
            if not _is_int(status) or not 100 <= status <= 199 or status == 101:
                raise ValueError(f"interim={self.interim!r}: statuses from 100 to 199, without 101, are expected")
        self._check_combination()
        self.is_immediate = not (
            callable(self.status) or self.delay or self.hang or self.reset or self.hang_up or self.interim
        )

    def _check_combination(self) -> None:
        endings = [n for n in ("reset", "hang_up", "hang", "close_after_headers") if getattr(self, n)]
        if len(endings) > 1:
            raise ValueError(f"{endings[0]}=True and {endings[1]}=True: only one of them is possible")
        if self.reset or self.hang_up:
            for name, default in (("headers", ()), ("body", None), ("drip", 0.0), ("close", False)):
                if getattr(self, name) != default:
                    raise ValueError(f"{name}={getattr(self, name)!r}: there is no answer with {endings[0]}=True")

    @property
    def ends_connection(self) -> bool:
        """Whether the connection is closed after the answer, whatever the client wants."""
        return self.close or any(n.lower() == "connection" and "close" in v.lower() for n, v in self.headers)


def render(answer: Answer, status: int, method: str, *, keep: bool) -> bytes:
    """The bytes of an answer with this status; `keep` says whether the connection goes on after it."""
    given = {name.lower() for name, _ in answer.headers}
    reason = _REASONS.get(status, "Unknown")
    lines = [f"HTTP/1.1 {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    body = answer.body
    if body is None:
        body = b"ok" if status < 300 else reason.encode("ascii")
    if status in _BODILESS:
        body = b""
    if body and "content-type" not in given:
        lines.append("Content-Type: text/plain; charset=UTF-8")
    # A length of the script's own stands, also a wrong one: that is what it is there for.
    if status not in _BODILESS and not given & {"content-length", "transfer-encoding"}:
        # With no body to cut off there would be nothing for the client to miss.
        lines.append(f"Content-Length: {len(body) or (100 if answer.close_after_headers else 0)}")
    if not keep and "connection" not in given and not answer.close_after_headers:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if method == "HEAD" or answer.close_after_headers else head + body


def render_interim(status: int) -> bytes:
    """The bytes of an interim answer."""
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Interim')}\r\n\r\n".encode("ascii")


def check_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> tuple[tuple[str, str], ...]:
    """Header fields as pairs of strings; raises when one of them would break the answer apart."""
    if headers is None:
        return ()
    pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers={headers!r}: names and values have to be strings")
        if not name or any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"headers={headers!r}: no empty names, and no line ends or NULs, are allowed")
    return pairs


def check_status(name: str, status: object) -> int:
    """A final status; raises `TypeError` or `ValueError` when it is none."""
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"{name}={status!r}: a status from 200 to 599, or a function of the request, is expected")
    if not 200 <= status <= 599:
        raise ValueError(f"{name}={status!r}: a status from 200 to 599 is expected")
    return int(status)


def check_seconds(name: str, value: object) -> float:
    """A number of seconds, 0 or more; raises `TypeError` or `ValueError` when it is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: a number of seconds is expected")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value!r}: a finite number of seconds, 0 or more, is expected")
    return float(value)


def check_count(name: str, value: object, least: int) -> int:
    """A whole number, `least` or more; raises `TypeError` or `ValueError` when it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: a whole number is expected")
    if value < least:
        raise ValueError(f"{name}={value!r}: {least} or more is expected")
    return value


def check_hosts(name: str, value: object) -> tuple[str, ...]:
    """Names of hosts; raises `TypeError` or `ValueError` when they are none."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}={value!r}: a sequence of names is expected")
    hosts = tuple(value)
    for host in hosts:
        if not isinstance(host, str):
            raise TypeError(f"{name}={value!r}: names have to be strings")
        if not host or any(character in host for character in ":/ "):
            raise ValueError(f"{name}={value!r}: names without a port are expected, not {host!r}")
    return hosts


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


OK = Answer(times=None)
NOT_FOUND = Answer(404, times=None)
