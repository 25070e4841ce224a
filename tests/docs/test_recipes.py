"""The recipes of docs/recipes, run as they are written, with the real packages: each event arrives, and once."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fastemit.testing import Collector
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.pages import ROOT, block, command, write_files
from tests.support.ports import answers, free_port
from tests.support.processes import Watched, watched

REQUESTS = 12
PAGES = sorted(path.stem for path in (ROOT / "docs/recipes").glob("*.md"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the recipes are about servers that Windows lacks")


class Recipe:
    """A page whose files are in a directory of the test, and whose commands can be run there."""

    def __init__(self, page: str, directory: Path, collector: Collector) -> None:
        self.page = f"docs/recipes/{page}.md"
        self.port = free_port()
        self.directory = directory
        self.collector = collector
        self.add(page)

    def add(self, page: str) -> None:
        """Write the files of a page."""
        write_files(f"docs/recipes/{page}.md", self.directory, self.collector.url, self.port)

    def run(self, title: str = "Run", *more: str) -> AbstractContextManager[Watched]:
        """Run the command of the page that has this title, with more arguments behind it."""
        env = environment(PYTHONWARNINGS="ignore", PYTHONUNBUFFERED="1")
        return watched([*command(self.page, title, self.port), *more], cwd=self.directory, env=env)

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        """The end of a program that is run where the files are."""
        with watched([sys.executable, "-c", program], cwd=self.directory, env=environment()) as running:
            return running.wait()

    def ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers={"User-Agent": "a-browser"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return answer.read()
        finally:
            connection.close()

    def load(self, server: Watched) -> list[str]:
        """Ask for some pages; their addresses."""
        server.until(lambda: answers(self.port))
        for number in range(REQUESTS):
            self.ask("GET", f"/product/{number}")
        return [f"http://127.0.0.1:{self.port}/product/{number}" for number in range(REQUESTS)]

    @property
    def viewed(self) -> list[str]:
        """The pages that were viewed, by what arrived, in the order of their numbers."""
        urls = [event["url"] for event in self.collector.events if event["e"] == "pv"]
        return sorted(urls, key=lambda url: int(url.rpartition("/")[2]))

    @property
    def labels(self) -> list[int]:
        return sorted(int(event["se_la"]) for event in self.collector.events if event["e"] == "se" and "se_la" in event)

    @property
    def actions(self) -> list[str]:
        return [event["se_ac"] for event in self.collector.events if event["e"] == "se"]


MakeRecipe = Callable[[str], Recipe]


@pytest.fixture
def recipe(tmp_path: Path, collector: Collector) -> MakeRecipe:
    return lambda page: Recipe(page, tmp_path, collector)


def test_each_recipe_is_tested() -> None:
    named = set(re.findall(r'\brecipe\("(\w+)"\)', Path(__file__).read_text(encoding="utf-8")))
    assert named == set(PAGES) - {"index"}


# -- programs --------------------------------------------------------------------------------------------------------


def test_a_script_delivers_and_says_so(recipe: MakeRecipe) -> None:
    script = recipe("script")
    with script.run() as program:
        done = program.wait()
    assert (done.returncode, done.stdout) == (0, "1000 sent, 0 dropped, 0 left\n")
    assert script.labels == list(range(1000))


def test_a_script_that_is_terminated_sends_what_it_has(recipe: MakeRecipe) -> None:
    script = recipe("script")
    file = script.directory / "import_orders.py"
    file.write_text(file.read_text().replace("left = emitter", "print('ready')\nsignal.pause()\nleft = emitter"))
    with script.run() as program:
        program.until(lambda: "ready" in program.output)
        program.process.send_signal(signal.SIGTERM)
        assert program.wait().returncode == 143
    assert script.labels == list(range(1000))


@needs_host("gevent")
def test_gevent_delivers(recipe: MakeRecipe) -> None:
    crawl = recipe("gevent")
    with crawl.run() as program:
        done = program.wait()
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 left\n", "")
    assert crawl.labels == list(range(500))


# A runtime as Lambda's: it calls, and freezes the process. Connections do not outlive that.
RUNTIME = """
import sys, threading
sys.path.insert(0, "")
from handler import handler

class Context:
    def get_remaining_time_in_millis(self):
        return 3000

for order in range(3):
    assert handler({"order": order}, Context()) == {"statusCode": 200}
    assert threading.active_count() == 1, threading.enumerate()
    print("frozen", flush=True)
    sys.stdin.readline()
import os
os._exit(0)
"""


def test_lambda_has_sent_everything_when_the_handler_returns(recipe: MakeRecipe) -> None:
    function = recipe("lambda")
    with subprocess.Popen(
        [sys.executable, "-c", RUNTIME],
        cwd=function.directory,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for order, expected in enumerate([[0], [0], [0, 1, 2]]):
            # What the second call cannot send, the third one does.
            function.collector.respond(503 if order == 1 else 200)
            if order:
                process.stdin.write("\n")
                process.stdin.flush()
            assert process.stdout.readline() == "frozen\n"
            assert function.labels == expected
            function.collector.drop_connections()
        process.stdin.close()
        assert process.wait(20) == 0


# -- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_host("django")
@needs_host("gunicorn")
def test_django_tracks_each_request(recipe: MakeRecipe) -> None:
    site = recipe("django")
    with site.run() as server:
        asked = site.load(server)
        # By the flush interval, without an end of the server.
        site.collector.wait_for(REQUESTS)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0
    assert site.viewed == asked
    assert {event["ua"] for event in site.collector.events} == {"a-browser"}


@needs_host("flask")
def test_flask_tracks_each_request(recipe: MakeRecipe) -> None:
    site = recipe("flask")
    with site.run() as server:
        asked = site.load(server)
        server.process.send_signal(signal.SIGINT)
        server.wait()
    assert site.viewed == asked
    assert {event["ip"] for event in site.collector.events} == {"127.0.0.1"}


@needs_host("fastapi")
@needs_host("uvicorn")
def test_fastapi_tracks_each_request(recipe: MakeRecipe) -> None:
    site = recipe("fastapi")
    with site.run() as server:
        asked = site.load(server)
        assert json.loads(site.ask("POST", "/flush"))["sent"] == REQUESTS
        assert site.viewed == asked
        site.ask("GET", "/product/100")
        server.process.send_signal(signal.SIGINT)
        server.wait()
    arrived = [event["url"].rpartition("/")[2] for event in site.collector.events]
    assert arrived == [*map(str, range(REQUESTS)), "flush", "100"]


def test_asyncio_without_a_framework_delivers(recipe: MakeRecipe) -> None:
    worker = recipe("fastapi")
    with worker.run("Run the worker") as program:
        assert program.wait().stdout == "100 sent\n"
    assert worker.labels == list(range(100))


@pytest.mark.slow
@needs_host("gunicorn")
def test_gunicorn_with_preload_tracks_each_request_and_the_start_once(recipe: MakeRecipe) -> None:
    site = recipe("gunicorn")
    with site.run() as server:
        asked = site.load(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0
    assert site.viewed == asked
    assert site.actions == ["start"]


@pytest.mark.slow
@needs_host("gunicorn")
@needs_host("gevent")
def test_gunicorn_with_gevent_workers_tracks_each_request_and_the_start_once(recipe: MakeRecipe) -> None:
    site = recipe("gevent")
    write_files("docs/recipes/gunicorn.md", site.directory, site.collector.url, site.port)
    site.add("gevent")
    with site.run("Run the server") as server:
        asked = site.load(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait().returncode == 0
    assert site.viewed == asked
    assert site.actions == ["start"]


@needs_host("uwsgidecorators")
@pytest.mark.slow
@pytest.mark.parametrize("threads", [True, False], ids=["threads", "no-threads"])
def test_uwsgi_tracks_each_request_and_the_start_once(recipe: MakeRecipe, threads: bool) -> None:
    site = recipe("uwsgi")
    if not threads:
        # The page's other way: its emitter, in an application that is not allowed threads.
        other = block(site.page, "").text.replace("collector.example.com", site.collector.url)
        app, ini = site.directory / "app.py", site.directory / "uwsgi.ini"
        app.write_text(re.sub(r"^emitter = .*\n", other, app.read_text(), flags=re.MULTILINE))
        assert "background=False" in app.read_text()
        ini.write_text(ini.read_text().replace("enable-threads = true\n", ""))
    # Seen once: a worker that was still on its way to there was not told to stop, and uWSGI waited for it.
    with (site.directory / "uwsgi.ini").open("a") as file:
        file.write("\nhook-accepting = print:accepts\n")
    with site.run() as server:
        server.until(lambda: server.errors.count("(accepting)") == 4)
        asked = site.load(server)
        server.process.send_signal(signal.SIGTERM)
        server.wait()
    assert site.viewed == asked
    assert site.actions == ["start"]


@pytest.mark.slow
@needs_host("celery")
def test_tasks_of_celery_track(recipe: MakeRecipe) -> None:
    tasks = recipe("celery")
    # A broker of files in place of Redis: the recipe is about the workers.
    with (tasks.directory / "tasks.py").open("a") as file:
        file.write("""
folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.01}
app.conf.update(broker_url="filesystem://", broker_transport_options=folders, worker_proc_alive_timeout=30)
""")
    for folder in ("queue", "control"):
        (tasks.directory / folder).mkdir()
    queued = tasks.python("from tasks import ship\nfor n in range(20): ship.delay(n)")
    assert queued.returncode == 0, queued.stderr
    # Without what workers tell each other, which costs seconds.
    with tasks.run("Run", "--without-gossip", "--without-mingle", "--without-heartbeat") as worker:
        tasks.collector.wait_for(20, 30)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait().returncode == 0
    assert tasks.labels == list(range(20))
