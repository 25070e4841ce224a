"""`Collector`: its public methods, its listening socket and its threads."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from fastemit._time import monotonic
from fastemit.testing._answer import Answer, Status, check_count, check_headers, check_hosts, check_seconds
from fastemit.testing._connection import Connection
from fastemit.testing._guard import Guard
from fastemit.testing._journal import BadEvent, Journal, Totals
from fastemit.testing._listener import listen
from fastemit.testing._micro import answer_micro
from fastemit.testing._request import Request

#: Bytes of bodies that are kept; each request counts as 1 kB more.
DEFAULT_MAX_BYTES = 128 * 1024 * 1024
_CLOSE_TIMEOUT = 5.0

_running: set[Collector] = set()  # for the child of a fork


class Collector:
    """A Snowplow collector for tests: a real HTTP/1.1 server, with keep-alive, that keeps what it receives.

    Use it in a `with` statement, or call `start` and `close`. After `close`, `start` listens on the same port again,
    and what was received is still there. So a test can have an outage of the collector.

    A POST to any path that ends in `/com.snowplowanalytics.snowplow/tp2` carries events, and so does a GET of a path
    that ends in `/i`. Both are answered 200, and all other paths 404, until `respond` says otherwise. The paths of
    Snowplow Micro (`/micro/all`, `/micro/good`, `/micro/bad`, `/micro/reset`, `/health`) are always answered.
    `respond` does not change these answers, and the requests are not in `requests`.

    What is received stays in memory until `reset`. When there is more than `max_bytes`, the oldest requests are
    forgotten with their events. `totals` counts them, and a `wait_for` that would need them raises `RuntimeError`.
    Decoded events take some six times their bytes. What is no HTTP request is answered with 400 or another fitting
    status. Its connection is closed, and nothing is recorded.

    A page in a browser can reach this server, too, and the owner of a page can let its name lead to the loopback. So
    a request is answered 403 and not recorded unless its `Host` is a loopback name or address, or `host`, or in
    `allowed_hosts`. A collector that does not listen on the loopback also allows any bare address. `/micro/reset` is
    refused to pages of another origin.

    Args:
        host: the name or address to listen on. Default "127.0.0.1"; "::1" for IPv6.
        port: the port; 0, the default, for a free one.
        keep_bodies: False for load tests: bodies are read and not kept. `requests` have their `size` then, and
            whatever asks for events raises `RuntimeError`.
        max_bytes: most bytes of bodies that are kept; each request counts as 1 kB more. Default 128 MiB; None for no
            bound.
        idle_timeout: seconds after which a connection is closed on which nothing comes, or a request is not complete.
            Default 60; None for no limit.
        allowed_hosts: more names that a `Host` may have.

    Raises:
        TypeError, ValueError: naming the argument, its value and what is allowed.

    Thread safety: every method and attribute may be used from any thread. A forked child does not serve.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keep_bodies: bool = True,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        idle_timeout: float | None = 60.0,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
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
        if max_bytes is not None:
            check_count("max_bytes", max_bytes, 1)
        self._idle_timeout = None if idle_timeout is None else check_seconds("idle_timeout", idle_timeout)
        self._guard = Guard(host, check_hosts("allowed_hosts", allowed_hosts))
        self._journal = Journal(keeps_bodies=keep_bodies, max_bytes=max_bytes)
        self._lock = threading.Lock()  # start and close
        self._listener: socket.socket | None = None
        self._wake: socket.socket | None = None  # a byte written here ends the accepting thread
        self._acceptor: threading.Thread | None = None
        self._open: dict[int, Connection] = {}
        self._accepted = 0
        # Only the accepting thread writes to it, and `close` once that thread has ended.
        self._threads: set[threading.Thread] = set()
        # The threads that are about to end.
        self._finished: list[threading.Thread] = []

    # Starting and stopping.

    def start(self) -> Collector:
        """Listen, and return the collector itself. No effect if it listens already.

        Raises an `OSError` that names the address if the port is in use or not allowed, or the host is unknown.
        """
        with self._lock:
            if self._listener is not None:
                return self
            with ExitStack() as undo:  # what is open when something fails here
                listener = undo.enter_context(listen(self._host, self._port))
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
        """Stop listening, end all connections and join the threads. A request that waits for its answer gets none.

        What was received stays readable. A second call has no effect, nor has one before `start`. A thread may not end
        within 5 s, because a function given to `respond` does not return. Then there is a `ResourceWarning`.
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
            while not any(key.fileobj is receiver for key, _ in selector.select(self._end_idle())):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                except OSError:  # the client has left already, or there are no descriptors left
                    self._journal.closing.wait(0.02)
                    continue
                sock.setblocking(True)  # BSD and macOS hand on the listener's non-blocking mode
                self._serve(sock)

    def _end_idle(self) -> float | None:
        """End the connections whose time is up. Returns the seconds until the next look; None without connections."""
        if self._idle_timeout is None or not self._open:
            return None
        deadline = monotonic() - self._idle_timeout
        for connection in list(self._open.values()):
            if connection.waiting_since <= deadline:
                connection.cut()
        # A connection may begin to wait at any time. To look now and then costs less than to be woken each time.
        return min(max(self._idle_timeout / 4, 0.01), 1.0)

    def _serve(self, sock: socket.socket) -> None:
        while self._finished:
            thread = self._finished.pop()
            thread.join()
            self._threads.discard(thread)
        self._accepted += 1
        number = self._accepted
        connection = Connection(sock, number, self._journal, self._answer_micro, self._guard.refusal)

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
        return answer_micro(self._journal, self._guard, request)

    def _abandon(self) -> None:
        """Let go of the parent's sockets. Otherwise they would stay open after the parent has closed them."""
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
        """The events of the accepted requests, good or bad, in the order of acceptance, as a new list.

        A request is accepted if it is answered 2xx, just before the answer goes out. `respond(accept=...)` overrides
        that. Without delays and hangs this is the order of arrival. Bodies are decoded when they are first asked for.
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

        The envelope has its schema and at least one event. All values of an event are strings. It has `tv`, `p` and
        `e`, and no name that the schema does not define.
        """
        return [event for _, event in self._journal.verdict().good]

    @property
    def bad(self) -> list[BadEvent]:
        """The accepted events that do not follow these rules, and why. A body that is no envelope is one entry."""
        return self._journal.verdict().bad

    @property
    def totals(self) -> Totals:
        """How many requests, good and bad events came since the start or `reset`, and how many are forgotten."""
        return self._journal.totals()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Wait until at least `count` events were accepted, and return all that were.

        Raises `TimeoutError`, which says how many there are, after `timeout` seconds (default 10). Raises
        `RuntimeError` if a function given to `respond` raised, or some of the events are forgotten already.
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

        Calls queue up. When the queue is empty, the answer is 200 again. A request is read to its end before any of
        this happens.

        Args:
            status: 200 to 599, or a function that gets the `Request` and returns a status. Default 200.
            times: for how many requests. Default 1; None for all, until the next `respond` or `reset`.
            headers, body: headers and body of the answer. A Content-Length given here is sent as it is, even if it is
                wrong.
            delay: seconds before the answer. Default 0.
            drip: seconds between the bytes of the answer, which are sent one by one. Default 0, all at once.
            interim: interim statuses, such as `(103,)`, which are sent before the delay.
            close: send `Connection: close` with the answer, and close the connection after it.
            reset: send no answer, but reset the connection (TCP RST).
            hang_up: send no answer, but close the connection.
            hang: hold the answer back until `release` or `reset`.
            close_after_headers: send the headers of an answer with a body, and close the connection.
            accept: whether the events are kept. Default: None, if the answer is 2xx. With True they are kept when the
                request arrives, whatever follows. So a test can have an answer that is lost.

        Raises:
            TypeError, ValueError: naming the argument, its value and what is allowed.
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
        """Answer the requests that hang now. Later ones hang again."""
        self._journal.release()

    def reset(self) -> None:
        """Forget events, requests and what `respond` was told. Requests that hang are answered."""
        self._journal.reset()

    def drop_connections(self) -> None:
        """End all open connections, as servers do with idle ones. The collector goes on listening."""
        for connection in list(self._open.values()):
            connection.cut()


def _abandon_in_child() -> None:
    for collector in list(_running):
        collector._abandon()
    _running.clear()


_register: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_abandon_in_child)
