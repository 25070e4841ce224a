"""A program that becomes a daemon after it has sent: no number that was a socket of its parent's is used or closed.

The daemon closes every descriptor that it inherited, as PEP 3143 asks, and opens files of its own, which get the
numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.delivery import OK, RawServer, read_request, script_text
from tests.support.processes import environment, watched
from tests.support.pythons import RUNNING, prepared, pythons
from tests.support.slow import slow_but, slow_but_one_of_each
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

DAEMON = """
# What the parent's libraries leave to the garbage collector is collected in the daemon, where it closes its numbers.
gc.disable()

def as_daemon(main):
    # Forks twice, closes what it inherited, opens files of its own, and runs `main` to the end of the interpreter.
    # The process between waits, so that the status comes back; the numbers are those of a daemon all the same.
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    os.setsid()
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.closerange(3, 256)
    global files
    files = []
    while not files or files[-1].fileno() < 60:
        files.append(open(os.path.join(PLACE, str(len(files))), "w"))
        # It stays in the file's own memory until the interpreter ends.
        files[-1].write("x" * 8001)
    gc.collect()
    main()
    gc.collect()
    sys.exit(0)

PLACE = sys.argv[2]
ASKED, RELEASE = os.path.join(PLACE, "asked"), os.path.join(PLACE, "release")
os.makedirs(PLACE, exist_ok=True)
"""


class Held:
    """Answers requests well; of the one with event 1 it says by a file that it is there, and waits for another."""

    def __init__(self, release: Path) -> None:
        self._release = release
        self.requests: list[tuple[int, bytes]] = []

    def __call__(self, sock: socket.socket, number: int) -> None:
        while request := read_request(sock):
            self.requests.append((number, request))
            if b'"n":"1"' in request:
                self._release.with_name("asked").touch()
                until(self._release.exists, 30)
            sock.sendall(OK)

    def events(self) -> list[tuple[int, bytes]]:
        """The number of the connection and the event of each request."""
        return [(number, request.partition(b'"n":"')[2][:1]) for number, request in self.requests]


def pump(source: Any, sink: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def tunnel(port: int) -> Any:
    def handle(sock: socket.socket, _number: int) -> None:
        assert read_request(sock).startswith(b"CONNECT ")
        with socket.create_connection(("127.0.0.1", port), 10) as onward:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            # A TLS socket is not to be read and written to at once, so the way back waits for the way there.
            back = threading.Thread(target=pump, args=(onward, sock), daemon=True)
            back.start()
            pump(sock, onward)
            back.join(10)

    return handle


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    authority = trustme.CA()
    path = str(tmp_path_factory.mktemp("ca") / "ca.pem")
    authority.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "collector.example.com").configure_cert(context)
    return path, context


#: How events travel: the script that makes the emitter, whether by TLS, and the kind of proxy.
WAYS = {
    "http": ("emitter = Emitter(URL)", False, None),
    "https": ("emitter = Emitter(URL)", True, None),
    "a proxy": ("emitter = Emitter('http://collector.example.com')", False, "forward"),
    "a proxy by TLS": ("emitter = Emitter('http://collector.example.com')", True, "forward"),
    "a tunnel": ("emitter = Emitter('https://collector.example.com')", True, "tunnel"),
    "a tunnel by TLS": ("emitter = Emitter('https://collector.example.com')", True, "tunnel by TLS"),
    "a pool": ("import urllib3; emitter = Emitter(URL, pool_manager=urllib3.PoolManager())", False, None),
    "a pool by TLS": (
        "import urllib3; m = urllib3.PoolManager(ca_certs=os.environ['SSL_CERT_FILE']); "
        "emitter = Emitter(URL, pool_manager=m)",
        True,
        None,
    ),
    "a session": ("import requests; emitter = Emitter(URL, session=requests.Session())", False, None),
    "a session by TLS": ("import requests; emitter = Emitter(URL, session=requests.Session())", True, None),
    "a session's proxy": (
        "import requests; emitter = Emitter('http://collector.example.com', session=requests.Session())",
        False,
        "forward",
    ),
}
OWN = [way for way in WAYS if "pool" not in way and "session" not in way]

STATES = {
    "idle": "",
    "in flight": """
    put(emitter, 1, 1)
    threading.Thread(target=emitter.drain, args=(30,), daemon=True).start()
    until(lambda: emitter.stats().in_flight_events == 1 and os.path.exists(ASKED))
    """,
}


@contextlib.contextmanager
def serving(way: str, held: Held, context: ssl.SSLContext) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL, and the variables that lead there."""
    _, tls, proxy = WAYS[way]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RawServer(held, context if tls else None))
        if proxy is None:
            yield server.url, {}
        elif proxy == "forward":
            yield "unused", {"HTTP_PROXY": server.url}
        else:
            around = context if proxy == "tunnel by TLS" else None
            through = stack.enter_context(RawServer(tunnel(server.port), around))
            yield "unused", {"HTTPS_PROXY": through.url}


def run(directory: Path, script: str, url: str, version: str = RUNNING, **variables: str) -> None:
    path = directory / "script.py"
    path.write_text(script_text(script))
    command = [pythons()[version], "-W", "ignore::DeprecationWarning", str(path), url, str(directory / "files")]
    env = {**environment(), **variables}
    env["PYTHONPATH"] = prepared(version)
    with watched(command, env=env) as program:
        done = program.wait()
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def files_are_whole(directory: Path) -> None:
    files = [path for path in (directory / "files").iterdir() if path.name.isdecimal()]
    assert len(files) > 20
    assert [path.name for path in files if path.read_text() != "x" * 8001] == []


def story(make: str, state: str, then: str) -> str:
    first = f"""
    {make}
    put(emitter, 1, 0)
    assert emitter.drain(10)
    """
    last = f"""
    def main():
        {then}
    as_daemon(main)
    open(RELEASE, "w").close()
    put(emitter, 1, 3)
    assert emitter.drain(10)
    """
    return DAEMON + "".join(map(textwrap.dedent, (first, STATES[state], last)))


#: What the daemon does with the emitter.
THEN = {
    "ends": "pass",
    "forgets it": "global emitter; del emitter",
    "sends": "put(emitter, 1, 2); assert emitter.drain(10)",
}


def check(
    tmp_path: Path, certified: tuple[str, ssl.SSLContext], way: str, state: str, then: str, version: str = RUNNING
) -> None:
    authorities, context = certified
    held = Held(tmp_path / "files" / "release")
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    with serving(way, held, context) as (url, variables):
        script = story(WAYS[way][0], state, THEN[then])
        run(tmp_path, script, url, version, **dict.fromkeys(names, authorities), **variables)
        files_are_whole(tmp_path)
        # The parent's connection, and its TLS session, go on as if nothing had happened.
        mine = [number for number, event in held.events() if event != b"2"]
        assert len(mine) == (2 if state == "idle" else 3)
        assert set(mine) == {1}
        assert [event for _, event in held.events()].count(b"2") == (then == "sends")


CASES = list(itertools.product(WAYS, STATES, THEN))


@pytest.mark.parametrize(
    ("way", "state", "then"), slow_but_one_of_each(CASES, lambda case: case[0], lambda case: case[1:])
)
def test_a_daemon_keeps_its_files_and_its_parent_the_connection(
    tmp_path: Path, certified: tuple[str, ssl.SSLContext], way: str, state: str, then: str
) -> None:
    check(tmp_path, certified, way, state, then)


@pytest.mark.slow
@pytest.mark.parametrize("version", sorted(set(pythons()) - {RUNNING}))
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", ["https", "a pool by TLS"])
def test_a_daemon_of_another_python_does_so_too(
    tmp_path: Path, certified: tuple[str, ssl.SSLContext], way: str, state: str, version: str
) -> None:
    check(tmp_path, certified, way, state, "forgets it", version)


@pytest.mark.parametrize("way", slow_but(["http", "https", "a tunnel by TLS"], OWN))
def test_a_request_that_a_fork_interrupts_in_its_own_thread_leaves_the_connection_to_the_parent(
    tmp_path: Path, certified: tuple[str, ssl.SSLContext], way: str
) -> None:
    """A signal handler forks: in the child the request goes on, with a socket that is its parent's."""
    authorities, context = certified
    held = Held(tmp_path / "files" / "release")
    make = WAYS[way][0].replace(")", ", background=False, request_timeout=20)")
    script = DAEMON + textwrap.dedent(f"""
    import signal
    {make}
    put(emitter, 1, 0)
    assert emitter.drain(10)
    children = []
    def fork(*_):
        children.append(os.fork())
    signal.signal(signal.SIGUSR1, fork)
    def ask():
        until(lambda: os.path.exists(ASKED))
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: children)
        # Only in the parent: no thread but the forking one is in the child.
        assert os.waitpid(children[0], 0)[1] == 0
        open(RELEASE, "w").close()
    asking = threading.Thread(target=ask)
    asking.start()
    put(emitter, 1, 1)
    sent = emitter.drain(10)
    if children == [0]:
        # Nothing is here that the parent has not got.
        assert emitter.stats().sent_events == 0
        os._exit(0)
    assert sent
    asking.join()
    put(emitter, 1, 3)
    assert emitter.drain(10)
    """)
    with serving(way, held, context) as (url, variables):
        run(tmp_path, script, url, SSL_CERT_FILE=authorities, REQUESTS_CA_BUNDLE=authorities, **variables)
        assert [event for _, event in held.events()] == [b"0", b"1", b"3"]
        assert {number for number, _ in held.events()} == {1}
