"""Signal handlers: sets one for a while, and tells whether a handler raised an exception."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import signal

T = TypeVar("T")
U = TypeVar("U")


@contextmanager
def handling(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """Let `handler` handle these signals during the block. Only the main thread can, so in others nothing is set.

    At the end the earlier handlers are set again. Python cannot do that for one that was installed in C. Then `handler`
    stays.
    """
    import signal

    earlier: list[tuple[signal.Signals, Any]] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                earlier.append((number, signal.signal(number, handler)))
        yield
    finally:
        for number, before in earlier:
            if before is not None:
                signal.signal(number, before)


def of_signal_handler(error: BaseException) -> BaseException | None:
    """The exception of a signal handler that `error`, just caught, is or was made from. None if there is none.

    Python runs handlers in the main thread, between any two steps of the program. Many handlers raise: Celery's
    `SoftTimeLimitExceeded`, the `TimeoutError` of an alarm, the `SystemExit` of a SIGTERM. Such an exception is meant
    for the program. It is not the fault of the request or callback that happens to run. Its traceback goes through the
    handler, and no other traceback does. (A handler that is written in C cannot be seen there.)
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    handlers = _handlers()
    callers = _callers()
    found: BaseException | None = None
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        trace = each.__traceback__
        # A caller may have been handling an exception already when it called, as in a flush in an `except` block. That
        # one is the context of all later errors, but not their reason.
        if each is not error and trace is not None and trace.tb_frame in callers:
            continue
        if any(frame.f_code in handlers and _broke_in(frame) for frame in _way_of(trace)):
            found = each
        # A library may have made its own error of it, with the same traceback, as urllib3 does with a TimeoutError. So
        # the innermost error is the one that the handler raised.
        ahead += [each.__cause__, each.__context__]
    return found


def raise_of_signal_handler(error: BaseException) -> None:
    """Raise the exception of a signal handler that `error`, just caught, is or was made from, if there is one."""
    raised = of_signal_handler(error)
    if raised is not None:
        context = raised.__context__
        try:
            raise raised
        finally:
            # Python has set `error` as the context, but that was made from it.
            raised.__context__ = context


def guarded(call: Callable[[], T], otherwise: Callable[[Exception], U]) -> T | U:
    """Call the user's code: a callback, a hook, a store, a client, a log handler.

    Args:
        call: calls that code. What it returns is returned.
        otherwise: gets the exception that the code raised. What it returns is returned in that case.

    Raises:
        Exception: what a signal handler raised meanwhile, because that is not an error of the user's code.
    """
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        raise_of_signal_handler(error)
        return otherwise(error)


def _callers() -> list[FrameType]:
    """The frames that called the one that has caught the exception."""
    callers = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        callers.append(frame)
        frame = frame.f_back
    return callers


def _way_of(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _broke_in(frame: FrameType) -> bool:
    """Whether Python may have called this frame of a handler for a signal. Otherwise the program called it.

    Python gives a handler the frame that it interrupts. If no argument is a frame, the program called the handler as a
    function, such as a `stop()` that is also the handler of SIGTERM.
    """
    names, rest, _, values = inspect.getargvalues(frame)
    # An argument that the handler has deleted counts as a frame, because it may have been one.
    given = [values.get(name, frame) for name in names] + list(values.get(rest, ()) if rest else ())
    return any(isinstance(value, FrameType) for value in given)


def _handlers() -> set[CodeType]:
    # Whoever has set a handler has imported it. Nothing is imported here, in the middle of a request.
    signals: Any = sys.modules.get("signal")
    if not hasattr(signals, "valid_signals"):
        return set()
    codes = (_code_of(signals.getsignal(number)) for number in signals.valid_signals())
    return {code for code in codes if code is not None}


def _code_of(handler: Any) -> CodeType | None:
    """The code of a handler that is a function, a method, a partial or an object that can be called."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    if not hasattr(handler, "__code__"):
        handler = getattr(type(handler), "__call__", None)  # noqa: B004 - its code is what is wanted
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None
