"""TLS contexts: shared by the emitters of a process, and read again when the authorities on disk have changed."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastemit import Emitter
from fastemit._interfaces import Outcome
from fastemit._transport import tls as trust
from fastemit._transport.endpoint import parse_endpoint
from fastemit._transport.http import HttpTransport
from tests.support.delivery import OK, RawServer, Script, read_request, rigged

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@pytest.fixture(autouse=True)
def _none_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_shared", trust._Contexts())
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


class Rotating:
    """A collector whose certificate is of another authority after each `rotate`."""

    def __init__(self) -> None:
        self.rotate()

    def rotate(self) -> None:
        # Of one name, so that its hash stays the same.
        self.authority = trustme.CA(organization_name="Rotating", organization_unit_name="Rotating")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(self._context)

    def handle(self, sock: Any, _number: int) -> None:
        with self._context.wrap_socket(sock, server_side=True) as tls:
            if read_request(tls):
                tls.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    @property
    def pem(self) -> bytes:
        return self.authority.cert_pem.bytes()


@pytest.fixture
def rotating() -> Rotating:
    return Rotating()


@pytest.fixture
def server(rotating: Rotating) -> Iterator[RawServer]:
    with RawServer(rotating.handle) as server:
        server.url = server.url.replace("http:", "https:")
        yield server


def to(server: RawServer, ca_certs: Path | str | None) -> HttpTransport:
    where = None if ca_certs is None else str(ca_certs)
    return HttpTransport(parse_endpoint(server.url), (2.0, 2.0), ca_certs=where)


# -- rotation ----------------------------------------------------------------------------------------------------------


def written_in_place(bundle: Path, pem: bytes) -> None:
    bundle.write_bytes(pem)


def renamed_over(bundle: Path, pem: bytes) -> None:
    new = bundle.with_name("new.pem")
    new.write_bytes(pem)
    new.replace(bundle)


def renamed_over_with_the_old_times(bundle: Path, pem: bytes) -> None:
    """As `cp -p` and rsync do it."""
    before = bundle.stat()
    new = bundle.with_name("new.pem")
    new.write_bytes(pem)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(bundle)


@pytest.mark.parametrize("replace", [written_in_place, renamed_over, renamed_over_with_the_old_times])
@pytest.mark.parametrize("named_by", ["ca_certs", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_that_is_replaced_is_used_for_the_next_connection(
    rotating: Rotating,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    named_by: str,
    replace: Callable[[Path, bytes], None],
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(rotating.pem)
    if named_by != "ca_certs":
        monkeypatch.setenv(named_by, str(bundle))
    client = to(server, bundle if named_by == "ca_certs" else None)
    for _ in range(3):
        assert client.post(b"{}") == Outcome(status=200)
        rotating.rotate()
        # The new certificate is not trusted before the bundle is there, and is right after it.
        assert client.post(b"{}").status is None
        replace(bundle, rotating.pem)
    assert client.post(b"{}") == Outcome(status=200)


def test_an_authority_that_is_taken_out_of_the_bundle_is_not_trusted_any_more(
    rotating: Rotating, server: RawServer, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(rotating.pem + trustme.CA().cert_pem.bytes())
    client = to(server, bundle)
    assert client.post(b"{}").status == 200
    renamed_over(bundle, trustme.CA().cert_pem.bytes())
    outcome = client.post(b"{}")
    assert (outcome.status, "certificate" in (outcome.error or "").lower()) == (None, True)


def mounted(directory: Path, version: str, pem: bytes) -> None:
    """A volume as Kubernetes mounts it: `ca.crt -> ..data/ca.crt`, `..data -> ..version`, swapped at once."""
    real = directory / f"..{version}"
    real.mkdir()
    (real / "ca.crt").write_bytes(pem)
    link = directory / "..data_tmp"
    link.symlink_to(real.name)
    link.replace(directory / "..data")
    if not (directory / "ca.crt").is_symlink():
        (directory / "ca.crt").symlink_to("..data/ca.crt")
    for old in directory.glob("..v*"):
        if old != real:
            shutil.rmtree(old)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_a_secret_of_kubernetes_is_followed(rotating: Rotating, server: RawServer, tmp_path: Path) -> None:
    mounted(tmp_path, "v0", rotating.pem)
    client = to(server, tmp_path / "ca.crt")
    for number in range(1, 4):
        assert client.post(b"{}").status == 200
        rotating.rotate()
        mounted(tmp_path, f"v{number}", rotating.pem)
    assert client.post(b"{}").status == 200


def hashed_name(pem: bytes) -> str:
    command = ["openssl", "x509", "-hash", "-noout"]
    return subprocess.run(command, input=pem, capture_output=True, check=True).stdout.decode().strip()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to name a file by its hash")
@pytest.mark.parametrize("how", ["entries", "links", "directory"])
def test_a_directory_of_hashed_certificates_is_followed(
    rotating: Rotating, server: RawServer, tmp_path: Path, how: str
) -> None:
    (tmp_path / "real0").mkdir()
    place = tmp_path / "certs"

    def put(number: int) -> None:
        name = hashed_name(rotating.pem) + ".0"
        if how == "entries":
            place.mkdir(exist_ok=True)
            for old in place.iterdir():
                old.unlink()
            (place / name).write_bytes(rotating.pem)
        elif how == "links":
            # The name stays, and what the link leads to is written over.
            place.mkdir(exist_ok=True)
            (tmp_path / f"{name}.pem").write_bytes(rotating.pem)
            if not (place / name).exists():
                (place / name).symlink_to(tmp_path / f"{name}.pem")
        else:
            real = tmp_path / f"real{number}"
            real.mkdir(exist_ok=True)
            (real / name).write_bytes(rotating.pem)
            (tmp_path / "swap").symlink_to(real.name)
            (tmp_path / "swap").replace(place)

    put(0)
    client = to(server, place)
    for number in range(1, 4):
        assert client.post(b"{}").status == 200
        rotating.rotate()
        assert client.post(b"{}").status is None
        put(number)
    assert client.post(b"{}").status == 200


def test_an_emitter_with_events_that_wait_sends_them_once_the_bundle_is_replaced(
    rotating: Rotating, server: RawServer, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(trustme.CA().cert_pem.bytes())
    with Emitter(server.url, ca_certs=str(bundle), batch_size=1, max_retry_delay_seconds=0.05) as emitter:
        emitter.input({"e": "pv"})
        assert emitter.drain(5) is False
        renamed_over(bundle, rotating.pem)
        assert emitter.drain(5) is True


@pytest.mark.parametrize("broken", [None, b"", b"half of a bun"])
def test_a_bundle_that_cannot_be_used_leaves_the_last_one_in_use_and_says_so_once(
    rotating: Rotating, server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: bytes | None
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(rotating.pem)
    client = to(server, bundle)
    if broken is None:
        bundle.unlink()
    else:
        bundle.write_bytes(broken)
    with caplog.at_level(logging.WARNING, "fastemit"):
        assert [client.post(b"{}").status for _ in range(3)] == [200] * 3
    (line,) = [record.getMessage() for record in caplog.records]
    assert (str(bundle) in line, "trusted on" in line) == (True, True)
    # A new emitter is told at once, as ever.
    with pytest.raises(ValueError, match=r"^ca_certs must be a file or directory of PEM certificates"):
        to(server, bundle)
    rotating.rotate()
    renamed_over(bundle, rotating.pem)
    assert client.post(b"{}").status == 200


# -- sharing -----------------------------------------------------------------------------------------------------------


def context_of(client: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = client._trust.current()
    return context


def test_emitters_that_trust_the_same_share_a_context(rotating: Rotating, server: RawServer, tmp_path: Path) -> None:
    bundle, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    bundle.write_bytes(rotating.pem)
    other.write_bytes(rotating.pem)
    first, second = to(server, bundle), to(server, bundle)
    assert context_of(first) is context_of(second)
    assert context_of(to(server, other)) is not context_of(first)
    before = context_of(first)
    renamed_over(bundle, rotating.pem)
    assert context_of(first) is context_of(second) is not before


def test_what_urllib3_sets_for_a_connection_does_not_reach_the_context_that_others_use(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(trustme.CA().cert_pem.bytes())
    mine = trust.trust_in(str(bundle))
    shared: Any = mine.current()
    mine.check_hostname = False
    mine.verify_mode = ssl.CERT_REQUIRED
    mine.set_alpn_protocols(["h2"])
    with pytest.raises(ValueError, match=r"^verify_mode must be CERT_REQUIRED"):
        mine.verify_mode = ssl.CERT_NONE
    assert (shared.check_hostname, shared.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert trust.trust_in(str(bundle)).check_hostname is True


def test_contexts_of_many_bundles_are_not_kept_for_ever(tmp_path: Path) -> None:
    for number in range(50):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(trustme.CA().cert_pem.bytes() if number == 0 else (tmp_path / "0.pem").read_bytes())
        trust.trust_in(str(path))
    gc.collect()
    assert len(trust._shared._known) == 16


def test_threads_that_make_emitters_at_once_read_the_bundle_once(
    rotating: Rotating, server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(rotating.pem)
    read = []
    original = trust._new_context
    monkeypatch.setattr(trust, "_new_context", lambda source: read.append(source) or original(source))
    clients: list[HttpTransport] = []
    threads = [threading.Thread(target=lambda: clients.append(to(server, bundle))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(clients), len(read)) == (16, 1)


def test_a_thousand_emitters_take_neither_memory_nor_time(tmp_path: Path) -> None:
    """Of an authority store as a system has one; one context of it takes 30 ms and 800 kB."""
    import resource
    import time

    certifi = pytest.importorskip("certifi")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is measured by /proc")
    before, started = resident(), time.process_time()
    emitters = [Emitter("https://127.0.0.1:9", ca_certs=certifi.where()) for _ in range(1000)]
    took, grown = time.process_time() - started, resident() - before
    assert len(emitters) == 1000
    assert took < 3.0
    assert grown < 100e6


# -- fork --------------------------------------------------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize("gone", [False, True])
def test_a_forked_child_makes_a_context_of_its_own_or_uses_its_parent_s_where_the_bundle_is_out_of_reach(
    tmp_path: Path, gone: bool
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(trustme.CA().cert_pem.bytes())
    with rigged() as rig:
        assert Script(rig, tmp_path)(f"""
        from fastemit._transport import tls as trust
        mine = trust.trust_in({str(bundle)!r})
        inherited = mine.current()
        # What a thread may hold at the moment of a fork.
        trust._shared._lock.acquire()
        child = os.fork()
        if child == 0:
            if {gone}:
                os.unlink({str(bundle)!r})
            result = []
            thread = threading.Thread(target=lambda: result.append(mine.current()))
            thread.start()
            thread.join(5)
            os._exit(0 if (result == [inherited]) is {gone} and len(result) == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        """).well
