"""The collector of the demo, in a process of its own, and the check of what it received."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import orjson


class DemoError(Exception):
    """Something that the demo shows is not so; the message is for the user."""


class CollectorProcess:
    """Runs `python -m fastemit collector`; a context manager.

    It has a process group of its own where there is such a thing, so that Ctrl-C goes to the demo alone, which then
    ends the collector after the emitters.
    """

    def __init__(self, port: int = 0) -> None:
        options: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastemit", "collector", "--port", str(port), "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self.url = ""

    def __enter__(self) -> CollectorProcess:
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if "http://" not in line:
                raise DemoError(f"the collector did not start (it printed {line!r})")
        except BaseException:
            self.end()
            raise
        self.url = line.split()[-1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the process, if need be by force."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def get(self, path: str) -> Any:
        """What the collector answers for one of the paths of Snowplow Micro."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except OSError as error:
            raise DemoError(f"the collector does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise DemoError(f"the collector answered {answer.status} to {path}")
        return orjson.loads(body)

    def check(self, who: str, tracked: Sequence[str]) -> int:
        """See that exactly the events with these ids arrived, each once, none bad; then have the collector forget them.

        Returns the number that arrived. Raises `DemoError` with one line when anything is not as it should be.
        """
        counts = self.get("/micro/all")
        bad = self.get("/micro/bad")
        arrived = Counter(entry["event"]["eid"] for entry in self.get("/micro/good"))
        expected = Counter(tracked)
        faults = {
            "lost": len(expected.keys() - arrived.keys()),
            "arrived more than once": sum(1 for count in arrived.values() if count > 1),
            "never tracked": len(arrived.keys() - expected.keys()),
            "malformed": len(bad),
        }
        if arrived != expected or bad or counts != {"total": len(tracked), "good": len(tracked), "bad": 0}:
            told = ", ".join(f"{count:,} {what}" for what, count in faults.items() if count)
            why = f" (the first: {bad[0]['errors'][0]})" if bad else ""
            raise DemoError(
                f"{who}: {len(tracked):,} events were tracked and {counts['total']:,} arrived: {told or counts}{why}"
            )
        self.get("/micro/reset")
        return arrived.total()
