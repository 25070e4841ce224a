"""A transport that puts each batch into a Celery task."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import replace
from typing import Any, Final

from fastemit._buffer import keep_for_ever
from fastemit._interfaces import Outcome
from fastemit._process import sockets
from fastemit._signals import guarded, raise_of_signal_handler
from fastemit.celery.worker import Destination
from fastemit.stats import described
from fastemit.typing import Method

#: Seconds to connect to the broker and for each of its answers: a broker that hangs is one that is down.
CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 10.0
#: The answer to a request whose events are the broker's now: accepted, and not yet sent.
ACCEPTED: Final = 202


class NotTakenError(Exception):
    """A task that runs in the caller's own process (`task_always_eager`) could not send its events."""


class Publisher:
    """Publishes tasks over connections of its own, which no other process and no pool of Celery's shares.

    Nothing is waited for longer than the timeouts above, and nothing is tried again here but what an idle connection
    refused: a broker that is down is the delivery's to wait for, like a collector that is.

    Thread safety: any number of threads may publish; each uses a connection of its own.

    Args:
        task: the Celery task, of the app whose broker is published to.
        destination: what the worker is told of where to send; may be replaced at any time.
    """

    def __init__(self, task: Any, destination: Destination) -> None:
        self.destination = destination
        self._task = task
        self._app = task.app
        self._idle: deque[Any] = deque()
        # Imports the broker's client now, before there are threads: a fork in the middle of an import leaves a module
        # lock in the child that nobody will ever release.
        self._app.connection_for_write().get_transport_cls()

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
        # Requests by hand may be of the other kind.
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
                    # Once: what fails is the delivery's to try again.
                    retry=False,
                    # What logs, events and monitors show of the arguments: neither events nor a password.
                    argsrepr="()",
                    kwargsrepr=f"<{len(body)} characters>",
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
                    # The broker may have closed it long ago. The others are as old.
                    self.close()
                    continue
                return Outcome(error=described(error), timed_out=connected and timed_out)
            if cap is None:
                self._idle.append(producer)
            else:
                self._drop(producer)
            return Outcome(status=ACCEPTED)

    def _run_here(self, arguments: dict[str, Any]) -> Outcome:
        """Run the task in this thread, where an app is set to do so: there is no broker to keep events."""

        def run() -> Outcome:
            result = self._task.apply(kwargs=arguments, throw=True)
            return Outcome(status=ACCEPTED) if result.successful() else Outcome(error=str(result.result))

        return guarded(run, lambda error: Outcome(error=described(error)))

    def _connect(self, cap: float | None) -> Any:
        """A producer on a new connection, established within the timeouts."""
        connect, answer = CONNECT_TIMEOUT, ANSWER_TIMEOUT
        if cap is not None:
            connect, answer = min(connect, cap), min(answer, cap)
        # What the user has set in `broker_transport_options` is stronger, but not than the cap.
        given = dict(self._app.conf.broker_transport_options or {})
        options = {**_bounds(self._app, connect, answer), **given}
        if cap is not None:
            options.update(_bounds(self._app, connect, answer))
        connection = self._app.connection_for_write(connect_timeout=connect, transport_options=options)
        try:
            # Each of several brokers once. Without this, kombu connects at the first use, and tries for ever.
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
        """Close a connection without a word to the broker, which may not listen."""
        if producer is not None:
            with contextlib.suppress(Exception):  # it is gone in any case
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
        # An AMQP connection over TLS says goodbye when it is collected, and finds that it cannot.
        keep_for_ever(self._idle)
        self._idle = deque()


def _bounds(app: Any, connect: float, answer: float) -> dict[str, Any]:
    """How to tell this broker's client to wait no longer, and that it must see a message confirmed."""
    driver = app.connection_for_write().get_transport_cls().driver_type
    if driver == "redis":
        return {"socket_connect_timeout": connect, "socket_timeout": answer}
    if driver == "amqp":
        return {"read_timeout": answer, "write_timeout": answer, "confirm_publish": True}
    return {}


def _is_timeout(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, is a timeout: redis has a class of its own for it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TimeoutError) or type(seen).__name__ == "TimeoutError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _forget(connection: Any) -> None:
    """Close a connection without a word to the broker, which may not listen.

    Not by kombu's `collect`: that changes the default timeout of all sockets of the process for a moment, and for good
    where two threads do so at once.
    """
    # amqp's own, which closes the socket; other transports say nothing when they are closed.
    collect = getattr(connection._connection, "collect", None)
    if callable(collect):
        collect()
        connection._connection = connection._default_channel = None
    connection._close()
