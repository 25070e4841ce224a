"""A transport that puts each batch into a Celery task."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import replace
from typing import Any, Final

from fastemit._interfaces import Outcome, RequestTransport
from fastemit._process import sockets
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit._system import keep_for_ever
from fastemit.celery.worker import Destination, shown
from fastemit.stats import described
from fastemit.typing import Method

#: Seconds to connect to the broker and for each of its answers. A broker that hangs counts as one that is down.
CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 10.0
#: The status of a batch that the broker has: accepted, but not sent yet.
ACCEPTED: Final = 202


class NotTakenError(Exception):
    """A task that runs in the caller's own process (`task_always_eager`) could not send its events."""


class Publisher(RequestTransport):
    """Publishes tasks over its own connections, which it shares with no other process and no pool of Celery.

    No step waits longer than the timeouts above. Only what failed on an idle connection is tried again here. When the
    broker is down, the delivery waits for it, as it waits for a collector.

    Thread safety: any number of threads may publish; each uses its own connection.

    Args:
        task: the Celery task. Its app says which broker to publish to.
        destination: where the worker sends the events; may be replaced at any time.
    """

    def __init__(self, task: Any, destination: Destination) -> None:
        self.destination = destination
        self._task = task
        self._app = task.app
        self._idle: deque[Any] = deque()
        # Imports the broker's client now, before there are threads. If a fork came in the middle of such an import, the
        # child would have a module lock that nobody ever releases.
        self._app.connection_for_write().get_transport_cls()
        _make_dispatcher(self._app)

    @property
    def timeout(self) -> tuple[float, float] | None:
        """(connect, read) of the requests that the worker makes."""
        return self.destination.timeout

    @timeout.setter
    def timeout(self, value: tuple[float, float] | None) -> None:
        self.destination = replace(self.destination, timeout=value)

    def post(self, body: bytes | memoryview, cap: float | None = None) -> Outcome:
        return self._publish("post", str(body, "utf-8"), cap)

    def get(self, query: str, cap: float | None = None) -> Outcome:
        return self._publish("get", query, cap)

    def _publish(self, method: Method, body: str, cap: float | None) -> Outcome:
        # A request that is made by hand may have the other method.
        arguments = {"body": body, "to": {**self.destination.written(), "method": method}}
        if self._app.conf.task_always_eager:
            return self._run_here(arguments)
        while True:
            producer = None
            idle = bool(self._idle) and (cap is None or cap >= ANSWER_TIMEOUT)
            try:
                # Another thread may have been quicker.
                producer = self._idle.pop() if idle else self._connect(cap)
                self._task.apply_async(
                    kwargs=arguments,
                    producer=producer,
                    # Celery tries once, because the delivery tries again.
                    retry=False,
                    # Logs, task events and monitors show this in place of the arguments: no events, no password.
                    argsrepr="()",
                    kwargsrepr=shown(body, self.destination.endpoint.host),
                )
            except IndexError:
                if producer is None:
                    continue
                raise
            except Exception as error:  # noqa: BLE001 - each broker has errors of its own; the events are kept
                connected, timed_out = producer is not None, _is_timeout(error)
                self._drop(producer)
                raise_of_signal_handler(error)
                if idle and not timed_out:
                    # The broker may have closed it long ago. The other idle ones are as old, so all are closed.
                    self.close()
                    continue
                return Outcome(error=described(error), timed_out=connected and timed_out)
            if cap is None:
                self._idle.append(producer)
            else:
                self._drop(producer)
            return Outcome(status=ACCEPTED)

    def _run_here(self, arguments: dict[str, Any]) -> Outcome:
        """Run the task in this thread, because the app is set to do so. No broker keeps the events then."""

        def run() -> Outcome:
            result = self._task.apply(kwargs=arguments, throw=True)
            return Outcome(status=ACCEPTED) if result.successful() else Outcome(error=str(result.result))

        return guarded(run, lambda error: Outcome(error=described(error)))

    def _connect(self, cap: float | None) -> Any:
        """A producer on a new connection, established within the timeouts."""
        connect, answer = CONNECT_TIMEOUT, ANSWER_TIMEOUT
        if cap is not None:
            connect, answer = min(connect, cap), min(answer, cap)
        # What the user has set in `broker_transport_options` comes before the timeouts, but the cap before all.
        given = dict(self._app.conf.broker_transport_options or {})
        options = {**_bounds(self._app, connect, answer), **given}
        if cap is not None:
            options.update(_bounds(self._app, connect, answer))
        connection = self._app.connection_for_write(connect_timeout=connect, transport_options=options)
        try:
            # Tries each of several brokers once. Without this, kombu connects at the first use, and tries for ever.
            others = len(getattr(connection, "alt", ()) or ()) - 1
            connection.ensure_connection(
                max_retries=max(others, 0), interval_start=0, interval_step=0, interval_max=0, timeout=connect
            )
            return self._app.amqp.Producer(connection, auto_declare=False)
        except BaseException:
            _forget(connection)
            raise

    @staticmethod
    def _drop(producer: Any) -> None:
        """Close a connection without telling the broker, because it may not answer."""
        if producer is not None:
            with contextlib.suppress(Exception):  # the connection is not used again in any case
                _forget(producer.connection)

    def close(self) -> None:
        while True:
            try:
                producer = self._idle.pop()
            except IndexError:
                return
            self._drop(producer)

    def after_fork(self) -> None:
        for producer in list(self._idle):
            sockets.detach_all(sockets.of_kombu, producer.connection)
        # An AMQP connection over TLS writes to its socket when it is collected. That would fail, so it is kept.
        keep_for_ever(self._idle)
        self._idle = deque()


def _make_dispatcher(app: Any) -> None:
    """Make the dispatcher of task events, for which Celery opens an epoll object. Celery makes it at the first task.

    Celery lets the garbage collector close that object, which may happen in a forked child. There its number may belong
    to a file of the child.
    """
    amqp = app.amqp
    if "_event_dispatcher" in vars(amqp) or not hasattr(type(amqp), "_event_dispatcher"):
        return
    # The end of the block frees the epoll object.
    with app.connection_for_write() as connection:
        dispatcher = app.events.Dispatcher(connection, enabled=False)
        dispatcher.connection = None
    amqp._event_dispatcher = dispatcher


def _bounds(app: Any, connect: float, answer: float) -> dict[str, Any]:
    """The options that bound the waits of this broker's client, and have it wait until a message is confirmed."""
    driver = app.connection_for_write().get_transport_cls().driver_type
    if driver == "redis":
        return {"socket_connect_timeout": connect, "socket_timeout": answer}
    if driver == "amqp":
        return {"read_timeout": answer, "write_timeout": answer, "confirm_publish": True}
    return {}


def _is_timeout(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, is a timeout. The package redis has its own class for that."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TimeoutError) or type(seen).__name__ == "TimeoutError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _forget(connection: Any) -> None:
    """Close a connection without telling the broker, because it may not answer.

    kombu's `collect` is not used: it changes the default timeout of all sockets of the process for a moment, and for
    good if two threads call it at once.
    """
    # amqp has a method of this name, which only closes the socket. Other transports tell nothing when they are closed.
    collect = getattr(connection._connection, "collect", None)
    if callable(collect):
        collect()
        connection._connection = connection._default_channel = None
    connection._close()
