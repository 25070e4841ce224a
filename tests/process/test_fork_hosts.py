"""Hosts that divide a process without a line of the user's: multiprocessing, gunicorn, uWSGI, Celery."""

from __future__ import annotations

import http.client
import signal
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tests.support.delivery import Rig, numbers
from tests.support.environment import environment
from tests.support.hosts import needs_host
from tests.support.ports import answers, free_port
from tests.support.processes import WATCHDOG, Watched, WatchedScript, watched
from tests.support.slow import slow, slow_but

POSIX = sys.platform != "win32"
METHODS = ["fork", "forkserver", "spawn"] if POSIX else ["spawn"]

needs_posix = pytest.mark.skipif(not POSIX, reason="does not run on Windows")


# -- multiprocessing -------------------------------------------------------------------------------------------------

# A module that is imported by its children has to be safe to import; they get no arguments.
MODULE = """
import sys
sys.argv += [""]
"""


def main(body: str) -> str:
    return f'if __name__ == "__main__":\n{textwrap.indent(textwrap.dedent(body), "    ")}'


@pytest.mark.parametrize("settings", ["", slow("background=False")])
@pytest.mark.parametrize("method", slow_but(METHODS[:1], METHODS))
def test_a_child_that_ends_by_itself_delivers(run: WatchedScript, method: str, settings: str) -> None:
    script = f"""
import multiprocessing

def child(url, first):
    put(Emitter(url, {settings}), 3, first)

""" + main(f"""
    context = multiprocessing.get_context("{method}")
    processes = [context.Process(target=child, args=(URL, 10 * number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    """)
    assert run(script, MODULE).well
    assert run.arrived == [0, 1, 2, 10, 11, 12, 20, 21, 22]


@pytest.mark.parametrize("method", slow_but(METHODS[-1:], METHODS))
def test_the_workers_of_a_pool_that_is_closed_deliver(run: WatchedScript, method: str) -> None:
    script = """
import multiprocessing

def start(url):
    global emitter
    emitter = Emitter(url)

def work(number):
    put(emitter, 1, number)

""" + main(f"""
    pool = multiprocessing.get_context("{method}").Pool(2, start, (URL,))
    pool.map(work, range(25), chunksize=1)
    pool.close()
    pool.join()
    """)
    assert run(script, MODULE).well
    assert run.arrived == list(range(25))


@needs_posix
def test_the_workers_of_a_pool_use_the_emitter_that_they_were_forked_with(run: WatchedScript) -> None:
    assert run("""
    import multiprocessing
    emitter = Emitter(URL)
    put(emitter, 3, 100)
    def work(number):
        put(emitter, 1, number)
    pool = multiprocessing.get_context("fork").Pool(2, maxtasksperchild=3)
    pool.map(work, range(25), chunksize=1)
    pool.close()
    pool.join()
    """).well
    assert run.arrived == [*range(25), 100, 101, 102]


def test_the_workers_of_a_process_pool_executor_deliver(run: WatchedScript) -> None:
    script = """
import concurrent.futures, multiprocessing

def start(url):
    global emitter
    emitter = Emitter(url)

def work(number):
    put(emitter, 1, number)

""" + main("""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context, start, (URL,)) as pool:
        list(pool.map(work, range(25)))
    """)
    assert run(script, MODULE).well
    assert run.arrived == list(range(25))


# What a child of multiprocessing leaves running: before Python 3.13 it is waited for after the child's finalizers.
LEFT_BEHIND = {
    "thread": """
        def late():
            over.wait(0.2)
            put(emitter, 3, 10)
        threading.Thread(target=late).start()
        """,
    "thread-of-a-thread": """
        def late():
            over.wait(0.1)
            threading.Thread(target=put, args=(emitter, 3, 10)).start()
        threading.Thread(target=late).start()
        """,
    "thread-pool": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        pool.submit(put, emitter, 3, 10).result()
        kept.append(pool)
        """,
    "thread-pool-at-work": """
        from concurrent.futures import ThreadPoolExecutor
        def late():
            over.wait(0.2)
            put(emitter, 3, 10)
        pool = ThreadPoolExecutor(2)
        pool.submit(late)
        kept.append(pool)
        """,
}
if sys.version_info < (3, 13):
    # From there on multiprocessing waits for threads before it ends such children: that hangs, with or without us.
    LEFT_BEHIND["thread-that-waits-for-a-child"] = """
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=over.wait, daemon=True)
        child.start()
        threading.Thread(target=child.join).start()
        put(emitter, 3, 10)
        """


@needs_posix
@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_what_a_child_of_multiprocessing_leaves_running_is_waited_for_and_hangs_nothing(
    run: WatchedScript, left: str
) -> None:
    body = textwrap.indent(textwrap.dedent(LEFT_BEHIND[left]), "    ")
    script = f"""
import multiprocessing
emitter = Emitter(URL)
over = threading.Event()
kept = []

def work():
    put(emitter)
{body}

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
assert process.exitcode == 0
"""
    assert run(script).well
    assert run.arrived == [0, 1, 2, 10, 11, 12]


@needs_posix
def test_a_child_of_multiprocessing_that_can_start_no_thread_delivers(run: WatchedScript) -> None:
    assert run("""
    import multiprocessing
    def refuse(self):
        raise RuntimeError("can't start new thread")
    def work():
        threading.Thread.start = refuse
        put(emitter)
    emitter = Emitter(URL)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
    """).well
    assert run.arrived == [0, 1, 2]


@needs_posix
def test_the_end_of_a_child_of_multiprocessing_is_in_time_when_the_collector_hangs(
    rig: Rig, run: WatchedScript
) -> None:
    rig.collector.respond(hang=True, times=None)
    assert run("""
    import multiprocessing
    emitter = Emitter(URL, shutdown_timeout=0.3)
    process = multiprocessing.get_context("fork").Process(target=put, args=(emitter,))
    process.start()
    started = time.monotonic()
    process.join()
    assert 0.2 < time.monotonic() - started < 1.3
    """).well


# -- servers ---------------------------------------------------------------------------------------------------------

APPLICATION = """
import os, threading
from fastemit import Emitter

emitter = Emitter(os.environ["COLLECTOR"], batch_size=50)
emitter.input({"n": 900_000})  # in the parent, with preload: its sender runs there
if os.environ.get("FLUSH"):
    emitter.flush()

def application(environ, start_response):
    number = int(environ["PATH_INFO"].strip("/"))
    emitter.input({"n": number})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""
CLIENTS = 4
REQUESTS = 100


class Load:
    """Clients that request `/0`, `/1` and so on of a server, at once, each number once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.workers: set[str] = set()
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        try:
            for number in range(client, CLIENTS * REQUESTS, CLIENTS):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WATCHDOG)
                connection.request("GET", f"/{number}")
                self.workers.add(connection.getresponse().read().decode())
                connection.close()
        except Exception as error:  # noqa: BLE001 - told by `join`
            self._errors.append(error)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(WATCHDOG)
        assert self._errors == []
        assert not any(thread.is_alive() for thread in self._threads)


def serve(server: Watched, port: int, rig: Rig, *, preload: bool) -> set[str]:
    """Put load on it and end it: each event arrives once. The processes that answered."""
    server.until(lambda: answers(port))
    if not preload:
        # uWSGI does not hear a graceful stop in a worker that is still importing, and waits for it for ever.
        server.until(lambda: numbers(rig.collector.events).count(900_000) == 4)
    load = Load(port)
    load.join()
    server.process.send_signal(signal.SIGTERM)
    server.wait()
    arrived = sorted(numbers(rig.collector.events))
    assert arrived[: CLIENTS * REQUESTS] == list(range(CLIENTS * REQUESTS))
    # One at each import: that of the parent, or of each worker.
    assert arrived[CLIENTS * REQUESTS :] == [900_000] * (1 if preload else 4)
    return load.workers


@needs_host("gunicorn")
@needs_posix
@pytest.mark.parametrize("kind", ["sync", slow("gthread")])
def test_gunicorn_with_preload_and_four_workers_delivers_each_event_once(rig: Rig, tmp_path: Path, kind: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    port = free_port()
    options = ["--preload", "-w", "4", "-k", kind, "-b", f"127.0.0.1:{port}", "--log-level", "warning"]
    options += ["--threads", "2"] if kind == "gthread" else []
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", *options, "app"]
    env = environment(COLLECTOR=rig.collector.url)
    with watched(command, cwd=tmp_path, env=env) as server:
        workers = serve(server, port, rig, preload=True)
        assert len(workers) > 1
        assert server.process.returncode == 0
        assert "rror" not in server.errors


def uwsgi() -> str:
    """The uWSGI beside this interpreter."""
    path = Path(sys.executable).with_name("uwsgi")
    assert path.exists(), "uWSGI is not installed: pip install --group test"
    return str(path)


@needs_host("uwsgidecorators")
@needs_posix
@pytest.mark.parametrize("threads", [True, slow(False)], ids=["threads", "no-threads"])
@pytest.mark.parametrize("forked", ["preload", slow("lazy")])
def test_uwsgi_delivers_each_event_once(rig: Rig, tmp_path: Path, forked: str, threads: bool) -> None:
    # Without threads the interpreter's lock is never let go for one: only the calling thread can send.
    text = APPLICATION if threads else APPLICATION.replace("batch_size=50", "batch_size=50, background=False")
    (tmp_path / "app.py").write_text(text)
    port = free_port()
    command = [uwsgi(), "--http-socket", f"127.0.0.1:{port}", "--master", "--processes", "4", "--need-app"]
    # Not --die-on-term: with it a worker that has answered, and is not done with its request, runs no exit handlers.
    command += ["--wsgi", "app", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]
    command += ["--disable-logging", "--pythonpath", str(tmp_path)]
    command += ["--enable-threads"] if threads else []
    command += ["--lazy-apps"] if forked == "lazy" else []
    # uWSGI's master runs no exit handlers, so what it is to send is sent before.
    env = environment(COLLECTOR=rig.collector.url, FLUSH="1")
    with watched(command, cwd=tmp_path, env=env) as server:
        workers = serve(server, port, rig, preload=forked == "preload")
        assert len(workers) > 1


# -- Celery ----------------------------------------------------------------------------------------------------------

TASKS = """
import os
from celery import Celery
from fastemit import Emitter

here = os.path.dirname(os.path.abspath(__file__))
folders = {"data_folder_in": here + "/queue", "data_folder_out": here + "/queue", "control_folder": here + "/control"}
app = Celery("tasks", broker="filesystem://", broker_transport_options=folders)
app.conf.worker_proc_alive_timeout = 30
emitter = Emitter(os.environ["COLLECTOR"], batch_size=1000)

@app.task
def track(number):
    emitter.input({"n": number})

if __name__ == "__main__":
    for number in range(40):
        track.delay(number)
"""


@pytest.mark.slow
@needs_host("celery")
@needs_posix
def test_the_workers_of_a_celery_pool_deliver_what_is_queued_when_they_end(rig: Rig, tmp_path: Path) -> None:
    """Both those that are replaced after some tasks, and the last, which a warm shutdown ends."""
    (tmp_path / "tasks.py").write_text(TASKS)
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    env = environment(COLLECTOR=rig.collector.url, PYTHONWARNINGS="ignore")
    with watched([sys.executable, "tasks.py"], cwd=tmp_path, env=env) as put:
        assert put.wait().returncode == 0
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "-c", "2", "-l", "INFO"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--max-tasks-per-child=7"]
    with watched(command, cwd=tmp_path, env=env) as worker:
        worker.until(lambda: worker.errors.count("succeeded in") == 40)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait().returncode == 0
    assert sorted(numbers(rig.collector.events)) == list(range(40))
