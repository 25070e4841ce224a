"""The collector: a listening socket, its threads, and the face of it all."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from fastemit._time import monotonic
from fastemit.testing._answer import Answer, Status, check_count, check_headers, check_seconds
from fastemit.testing._connection import Connection
from fastemit.testing._journal import BadEvent, Journal
from fastemit.testing._micro import answer_micro
from fastemit.testing._request import Request

_BACKLOG = 1024
_CLOSE_TIMEOUT = 5.0

_running: set[Collector] = set()  # for the child of a fork


class Collector:
    """A Snowplow collector for tests: a real HTTP/1.1 server, with keep-alive, that keeps what it receives.

    `host` is the name or address to listen on ("127.0.0.1" by default; "::1" for IPv6), `port` the port, 0
    for a free one. Use it in a `with` statement, or call `start` and `close`. After `close`, `start` listens
    on the same port again, with what it had received: an outage of the collector.

    A POST to any path that ends in `/com.snowplowanalytics.snowplow/tp2` and a GET of one that ends in `/i`
    carry events and are answered 200, all other paths 404, until `respond` says otherwise. The paths of
    Snowplow Micro (`/micro/all`, `/micro/good`, `/micro/bad`, `/micro/reset`, `/health`) are answered beside
    that: no script touches them, and they are not in `requests`.

    All that is received stays in memory, until `reset`. With `keep_bodies=False`, for load tests, bodies are
    read and thrown away: `requests` have their `size`, what asks for events raises `RuntimeError`. What is no
    HTTP request is answered with 400 or what else fits, the connection closed, and nothing recorded.

    Thread safety: every method and attribute may be used from any thread. A forked child of the process is no
    server: it only lets go of the sockets that it inherited.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, keep_bodies: bool = True) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host={host!r}: a name or an address is expected")
        if not host:
            raise ValueError(f"host={host!r}: a name or an address is expected")
        if check_count("port", port, 0) > 65535:
            raise ValueError(f"port={port!r}: a port from 0 to 65535 is expected")
        self._host = host
        self._port = port
        if not isinstance(keep_bodies, bool):
            raise TypeError(f"keep_bodies={keep_bodies!r}: True or False is expected")
        self._journal = Journal(keeps_bodies=keep_bodies)
        self._lock = threading.Lock()  # start and close
        self._listener: socket.socket | None = None
        self._wake: socket.socket | None = None  # a byte written here ends the accepting thread
        self._acceptor: threading.Thread | None = None
        self._open: dict[int, Connection] = {}
        self._accepted = 0
        # Written by the accepting thread alone, and by close when that has ended.
        self._threads: set[threading.Thread] = set()
        # Those of them that are about to end.
        self._finished: list[threading.Thread] = []

    # Starting and stopping.

    def start(self) -> Collector:
        """Listen, and return the collector itself; no effect when it does already.

        Raises an `OSError` that names the address when the port is in use, not allowed or the host unknown.
        """
        with self._lock:
            if self._listener is not None:
                return self
            with ExitStack() as undo:  # what is open when something fails here
                listener = undo.enter_context(_listen(self._host, self._port))
                receiver, wake = map(undo.enter_context, socket.socketpair())
                port = listener.getsockname()[1]
                self._journal.closing.clear()
                acceptor = threading.Thread(
                    target=self._accept, args=(listener, receiver), name=f"collector-{port}", daemon=True
                )
                acceptor.start()
                undo.pop_all()
            self._port, self._listener, self._wake, self._acceptor = port, listener, wake, acceptor
            _running.add(self)
        return self

    def close(self) -> None:
        """Stop listening, end all connections and join the threads; what waits for its answer gets none.

        What was received stays readable. Again, or before `start`: no effect. A thread that does not end
        within 5 s, because a function given to `respond` does not return, is reported with a
        `ResourceWarning`.
        """
        deadline = monotonic() + _CLOSE_TIMEOUT
        with self._lock:
            if self._listener is None:
                return
            assert self._wake is not None
            assert self._acceptor is not None
            self._journal.close()
            self._wake.send(b"x")
            self._acceptor.join(_CLOSE_TIMEOUT)
            self._wake.close()
            self._listener.close()
            self.drop_connections()
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(max(deadline - monotonic(), 0))
            stuck = [t.name for t in self._threads if t.is_alive() and t is not threading.current_thread()]
            self._threads.clear()
            self._finished.clear()
            self._listener = None
            _running.discard(self)
        if stuck:
            warnings.warn(f"threads of {self!r} did not end: {', '.join(stuck)}", ResourceWarning, stacklevel=2)

    def __enter__(self) -> Collector:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Collector {self._host}:{self._port}, {'listening' if self._listener else 'closed'}>"

    def _accept(self, listener: socket.socket, receiver: socket.socket) -> None:
        with receiver, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(receiver, selectors.EVENT_READ)
            while not any(key.fileobj is receiver for key, _ in selector.select()):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                except OSError:  # the client is gone again, or there are no descriptors left
                    self._journal.closing.wait(0.02)
                    continue
                sock.setblocking(True)  # BSD and macOS hand on the listener's non-blocking mode
                self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        while self._finished:
            thread = self._finished.pop()
            thread.join()
            self._threads.discard(thread)
        self._accepted += 1
        number = self._accepted
        connection = Connection(sock, number, self._journal, self._answer_micro)

        def run() -> None:
            try:
                connection.serve()
            finally:
                self._open.pop(number, None)
                self._finished.append(threading.current_thread())

        thread = threading.Thread(target=run, name=f"collector-connection-{number}", daemon=True)
        self._open[number] = connection
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads: the client sees its connection closed
            self._open.pop(number, None)
            self._threads.discard(thread)
            sock.close()

    def _answer_micro(self, request: Request) -> bytes:
        return answer_micro(self._journal, request)

    def _abandon(self) -> None:
        """Let go of the parent's sockets, so that what the parent closes is closed."""
        for connection in list(self._open.values()):
            connection.abandon()
        for sock in (self._listener, self._wake):
            if sock is not None:
                with suppress(OSError):
                    socket.close(sock.detach())
        self._lock = threading.Lock()
        self._listener = self._wake = self._acceptor = None
        self._open, self._threads, self._finished = {}, set(), []

    # Where it is.

    @property
    def host(self) -> str:
        """The host as given."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on, or listened on before it was closed."""
        if not self._port:
            raise RuntimeError("the port is not known before start()")
        return self._port

    @property
    def url(self) -> str:
        """The address without a path, as in `http://127.0.0.1:43211`."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}"

    # What came.

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of the accepted requests, in the order of acceptance, good or bad, as a new list.

        A request is accepted when it is answered 2xx, just before the answer goes out; `respond(accept=...)`
        overrides that. Without delays and hangs the order is that of arrival. Bodies are decoded when first
        asked for.
        """
        return self._journal.events()

    @property
    def requests(self) -> list[Request]:
        """All requests since the start or `reset` in the order of arrival, as a new list."""
        return self._journal.requests()

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted since the collector was made."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many of them are open now."""
        return len(self._open)

    @property
    def good(self) -> list[dict[str, Any]]:
        """The accepted events that follow the payload_data 1-0-4 rules.

        That is: in an envelope with its schema and at least one event, all values strings, `tv`, `p` and `e`
        there, and no name that the schema does not define.
        """
        return [event for _, event in self._journal.verdict().good]

    @property
    def bad(self) -> list[BadEvent]:
        """The accepted events that do not follow them, and why; a body that is no envelope is one entry."""
        return self._journal.verdict().bad

    def wait_for(self, count: int, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Wait until at least `count` events were accepted, and return all that were.

        Raises `TimeoutError`, saying how many there are, when `timeout` seconds have passed, and
        `RuntimeError` when a function given to `respond` failed.
        """
        return self._journal.wait_for(check_count("count", count, 0), check_seconds("timeout", timeout))

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> list[Request]:
        """Wait until at least `count` requests arrived, answered or not, and return all that did.

        Raises as `wait_for` does.
        """
        return self._journal.wait_for_requests(check_count("count", count, 0), check_seconds("timeout", timeout))

    # What to do.

    def respond(
        self,
        status: Status = 200,
        *,
        times: int | None = 1,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        body: bytes | None = None,
        delay: float = 0.0,
        drip: float = 0.0,
        interim: Iterable[int] = (),
        close: bool = False,
        reset: bool = False,
        hang_up: bool = False,
        hang: bool = False,
        close_after_headers: bool = False,
        accept: bool | None = None,
    ) -> None:
        """Say how the next requests are answered.

        Calls queue up; when the queue is empty the answer is 200 again. Requests have been read whole before
        any of this happens.

        - `status`: 200 to 599, or a function that gets the `Request` and returns one.
        - `times`: for how many requests (1 by default); None for all, until the next `respond` or `reset`.
        - `headers`, `body`: of the answer. A Content-Length given here is sent as it is, also a wrong one.
        - `delay`: seconds before the answer (0).
        - `drip`: the answer goes out byte by byte with this many seconds between (0: at once).
        - `interim`: interim statuses, as in `(103,)`, sent before the delay.
        - `close`: announce and do the closing of the connection after the answer.
        - `reset`: in place of an answer, reset the connection (TCP RST).
        - `hang_up`: in place of an answer, close the connection.
        - `hang`: hold the answer back until `release` or `reset`.
        - `close_after_headers`: send the headers of an answer with a body, and close.
        - `accept`: whether the events are kept; None for: if 2xx is answered. With True they are kept when
          the request arrives, also if an error, a reset or nothing follows: the case of an answer that was
          lost.

        Raises `TypeError` or `ValueError` naming the argument, its value and what is allowed.
        """
        if isinstance(interim, (str, bytes)) or not isinstance(interim, Iterable):
            raise TypeError(f"interim={interim!r}: a sequence of statuses is expected")
        self._journal.script(
            Answer(
                status=status,
                headers=check_headers(headers),
                body=body,
                delay=delay,
                drip=drip,
                interim=tuple(interim),
                close=close,
                reset=reset,
                hang_up=hang_up,
                hang=hang,
                close_after_headers=close_after_headers,
                accept=accept,
                times=times,
            )
        )

    def release(self) -> None:
        """Let the requests that hang now be answered; later ones hang again."""
        self._journal.release()

    def reset(self) -> None:
        """Forget events, requests and script, and release what hangs; connections stay open."""
        self._journal.reset()

    def drop_connections(self) -> None:
        """End all open connections, as a server does without a word with idle ones; goes on listening."""
        for connection in list(self._open.values()):
            connection.cut()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if sys.platform == "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error
    return listener


def _abandon_in_child() -> None:
    for collector in list(_running):
        collector._abandon()
    _running.clear()


_register: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_abandon_in_child)
