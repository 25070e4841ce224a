"""The services of examples/, started as their pages say, against the real collector."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.pages import ROOT, block, command
from tests.support.ports import answers, free_port
from tests.support.processes import Watched, watched
from tests.support.waiting import until

EXAMPLES = ROOT / "examples"
REQUESTS = 40

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the examples are about servers that Windows lacks")


class Service:
    """A copy of an example, and a port of its own."""

    def __init__(self, name: str, directory: Path, collector: Collector) -> None:
        self.page = f"examples/{name}/README.md"
        self.directory = shutil.copytree(EXAMPLES / name, directory / name)
        self.collector = collector
        self.port = free_port()
        for file in self.directory.glob("*.py"):
            file.write_text(file.read_text("utf-8").replace(":8000", f":{self.port}"), encoding="utf-8")

    def run(self, **variables: str) -> AbstractContextManager[Watched]:
        env = environment(SNOWPLOW_COLLECTOR=self.collector.url, PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore")
        return watched(command(self.page, "Run", self.port), cwd=self.directory, env={**env, **variables})

    def ask(self, path: str, method: str = "GET", port: int | None = None) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    def urls(self) -> list[str]:
        return [event["url"] for event in self.collector.good if event["e"] == "pv"]


MakeService = Callable[[str], Service]


@pytest.fixture
def service(tmp_path: Path, collector: Collector) -> MakeService:
    return lambda name: Service(name, tmp_path, collector)


@needs_host("fastapi")
@needs_host("uvicorn")
def test_the_fastapi_service_tracks_each_request_and_each_order(service: MakeService) -> None:
    shop = service("fastapi_service")
    with shop.run() as server:
        server.until(lambda: answers(shop.port))
        for number in range(REQUESTS):
            assert shop.ask(f"/products/{number}") == (200, json.dumps({"product": number}, separators=(",", ":")))
        assert shop.ask("/orders/7", "POST")[0] == 200
        server.process.send_signal(signal.SIGINT)
        assert f"tracking: {REQUESTS + 2} events sent, 0 left" in server.wait().stdout
    assert shop.urls() == [
        *(f"http://127.0.0.1:{shop.port}/products/{number}" for number in range(REQUESTS)),
        f"http://127.0.0.1:{shop.port}/orders/7",
    ]
    assert [event["se_la"] for event in shop.collector.good if event["e"] == "se"] == ["7"]
    assert shop.collector.bad == []


@pytest.mark.slow
@needs_host("fastapi")
@needs_host("uvicorn")
def test_the_fastapi_service_says_that_the_collector_is_down_and_loses_nothing_by_it(service: MakeService) -> None:
    shop = service("fastapi_service")
    shop.collector.respond(500, times=None)
    with shop.run() as server:
        server.until(lambda: answers(shop.port))
        assert shop.ask("/health")[0] == 200
        assert shop.ask("/products/1")[0] == 200
        until(lambda: shop.ask("/health")[0] == 503)
        assert json.loads(shop.ask("/health")[1]) == {"queued": 1, "sent": 0, "last_error": "status 500"}
        shop.collector.respond(200, times=None)
        server.process.send_signal(signal.SIGINT)
        server.wait()
    assert shop.urls() == [f"http://127.0.0.1:{shop.port}/products/1"]


@pytest.mark.slow
@needs_host("flask")
@needs_host("gunicorn")
def test_the_flask_service_tracks_each_request_and_each_worker_tells_its_own_numbers(service: MakeService) -> None:
    shop = service("flask_gunicorn")
    first = free_port()
    with shop.run(METRICS_PORT=str(first)) as server:
        server.until(lambda: server.errors.count("metrics at port") == 4)
        for number in range(REQUESTS):
            assert shop.ask(f"/products/{number}") == (200, f"product {number}")
        shop.collector.wait_for(REQUESTS)
        ports = [int(port) for port in re.findall(r"metrics at port (\d+)", server.errors)]
        assert len(set(ports)) == 4

        def sent() -> list[float]:
            pages = [shop.ask("/metrics", port=port)[1] for port in ports]
            told = [re.findall(r'^fastemit_sent_events_total\{emitter="default"\} (\S+)$', p, re.M) for p in pages]
            return [float(value) for (value,) in told]

        # The outcome of the last request is counted a moment after the collector has it.
        until(lambda: sum(sent()) == REQUESTS)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0
    assert sorted(shop.urls()) == sorted(f"http://127.0.0.1:{shop.port}/products/{n}" for n in range(REQUESTS))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/README.md")))
def test_what_an_example_says_to_ask_for_is_there(name: str) -> None:
    page = f"examples/{name}/README.md"
    code = "".join(file.read_text("utf-8") for file in sorted((EXAMPLES / name).glob("*.py")))
    paths = re.findall(r"8000(/\w+)", block(page, "Use").text)
    assert paths
    assert [path for path in paths if f'"{path}' not in code] == []
    assert shlex.split(block(page, "Collect").text) == ["fastemit", "collector", "--port", "9090"]
