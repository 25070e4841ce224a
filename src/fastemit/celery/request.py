"""What a worker tells monitors of a task."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request  # type: ignore[import-untyped]

from fastemit.celery.worker import shown_arguments


class QuietRequest(Request):  # type: ignore[misc]
    """A task that a worker has. `celery inspect` and flower see how many events it has, and for which host.

    Celery's own class shows them the arguments, which are events, headers and a password. It does so even if `argsrepr`
    and `kwargsrepr` are set.
    """

    def info(self, safe: bool = False) -> dict[str, Any]:
        return {**super().info(safe=True), "args": "()", "kwargs": shown_arguments(self.kwargs)}
