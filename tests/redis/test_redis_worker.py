"""RedisWorker over a real Redis and a real collector: nothing is lost, whoever dies."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastemit import AsyncEmitter, Emitter, RedisEmitter, RedisWorker
from fastemit.redis.scripts import beside
from fastemit.testing import Collector
from tests.support.emitters import Recorder, until
from tests.support.redis_server import QUICK, RedisServer, Relay, redis, running
from tests.support.reference import needs_reference_0_15, runner_with_0_15

DEAD = "{snowplow}:dead"
#: Seconds for processes that have to be started first.
PATIENCE = 30.0
MakeWorker = Callable[..., RedisWorker]


def event(number: int) -> str:
    return json.dumps({"e": "pv", "p": "srv", "tv": "test", "n": str(number)})


def put(rdb: Any, count: int, start: int = 0) -> None:
    rdb.rpush("snowplow", *[event(number) for number in range(start, start + count)])


def arrived(collector: Collector) -> list[int]:
    return [int(each["n"]) for each in collector.events]


#: In one step, or events that a worker takes meanwhile are seen in neither list.
LISTS = """
local lists = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('TYPE', key).ok == 'list' then lists[#lists + 1] = key end
end
return lists
"""


def left(rdb: Any) -> list[str]:
    """The keys that hold events, other than the dead list."""
    return [key.decode() for key in rdb.eval(LISTS, 0) if key.decode() != DEAD]


@contextlib.contextmanager
def at_work(*workers: RedisWorker) -> Iterator[None]:
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.request_shutdown()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def make(collector: Collector, rdb: Any, cls: Any = Emitter, **settings: Any) -> RedisWorker:
    mine = {name: settings.pop(name) for name in ("poll_interval", "takeover_after", "key") if name in settings}
    settings.setdefault("max_retry_delay_seconds", 0.05)
    return RedisWorker(cls(collector.url, **settings), rdb, **{"poll_interval": 0.01, **mine})


# -- the ordinary way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("decode", [False, True])
def test_events_arrive_in_order_and_leave_redis(
    server: RedisServer, rdb: Any, collector: Collector, method: str, decode: bool
) -> None:
    put(rdb, 300)
    with server.client(decode_responses=decode) as client:
        worker = make(collector, client, method=method)
        with at_work(worker):
            until(lambda: len(arrived(collector)) == 300)
            until(lambda: left(rdb) == [])
    assert arrived(collector) == list(range(300))
    assert rdb.keys() == []


def test_an_event_stays_in_redis_until_the_collector_has_answered(rdb: Any, collector: Collector) -> None:
    collector.respond(delay=0.5)
    put(rdb, 3)
    with at_work(make(collector, rdb)):
        until(lambda: len(collector.requests) == 1 or rdb.llen("snowplow") == 0)
        held = [key for key in left(rdb) if "inflight" in key]
        assert [rdb.llen(key) for key in held] == [3]
        until(lambda: left(rdb) == [])
    assert arrived(collector) == [0, 1, 2]


def test_values_become_strings_as_in_the_reference(rdb: Any, collector: Collector) -> None:
    rdb.rpush("snowplow", '{"i": 1, "n": null, "t": true, "f": 1.5, "nan": NaN}')
    with at_work(make(collector, rdb)):
        collector.wait_for(1, 10)
    assert {name: collector.events[0][name] for name in "intf"} == {"i": "1", "n": "None", "t": "True", "f": "1.5"}


def test_the_callbacks_of_the_emitter_run(rdb: Any, collector: Collector) -> None:
    told = Recorder()
    put(rdb, 5)
    worker = make(collector, rdb)
    worker.emitter.on_success = told.success
    with at_work(worker):
        until(lambda: sum(map(len, told.successes)) == 5)


def test_events_that_the_collector_refuses_leave_redis(rdb: Any, collector: Collector) -> None:
    collector.respond(status=400, times=None)
    put(rdb, 5)
    worker = make(collector, rdb)
    with at_work(worker):
        until(lambda: worker.stats().dropped_events["rejected"] == 5 and left(rdb) == [])


def test_a_collector_that_is_down_is_waited_for(rdb: Any, collector: Collector) -> None:
    collector.respond(500, times=3)
    put(rdb, 50)
    with at_work(make(collector, rdb)):
        until(lambda: left(rdb) == [])
    assert sorted(set(arrived(collector))) == list(range(50))


def test_a_worker_takes_no_more_than_its_emitter_can_hold(rdb: Any, collector: Collector) -> None:
    put(rdb, 500)
    worker = RedisWorker(
        Emitter("http://127.0.0.1:9", buffer_capacity=100, shutdown_timeout=0), rdb, poll_interval=0.01
    )
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 400)
        until(lambda: worker.stats().failed_requests > 1)
        assert rdb.llen("snowplow") == 400


def test_what_is_left_at_the_end_goes_back_in_order(rdb: Any) -> None:
    put(rdb, 20)
    worker = RedisWorker(Emitter("http://127.0.0.1:9", shutdown_timeout=0), rdb)
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 0)
    assert [json.loads(each)["n"] for each in rdb.lrange("snowplow", 0, -1)] == [str(number) for number in range(20)]
    assert rdb.keys() == [b"snowplow"]


def test_one_poisonous_event_holds_up_nobody_and_is_not_lost(rdb: Any) -> None:
    seen: Counter[str] = Counter()

    class Poisoned(Emitter):
        def http_post(self, data: str) -> int:
            events = [each["n"] for each in json.loads(data)["data"]]
            seen.update(events if "3" not in events else [])
            return 500 if "3" in events else 200

    put(rdb, 10)
    worker = RedisWorker(
        Poisoned("http://unused", max_retry_delay_seconds=0.001, shutdown_timeout=0), rdb, poll_interval=0.01
    )
    with at_work(worker):
        until(lambda: len(seen) == 9)
        put(rdb, 10, start=10)
        until(lambda: len(seen) == 19)
        until(lambda: sum(rdb.llen(key) for key in left(rdb)) == 1)
    assert rdb.lrange("snowplow", 0, -1) == [event(3).encode()]


# -- what is no event --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [False, True])
def test_what_is_no_event_goes_to_the_dead_list_and_the_rest_goes_on(
    server: RedisServer, rdb: Any, collector: Collector, decode: bool
) -> None:
    bad = [b"{", b"[1]", b"\xff\xfe", b"", b"7", b"{"]
    for number, each in enumerate(bad):
        rdb.rpush("snowplow", each, event(number))
    with server.client(decode_responses=decode) as client:
        worker = make(collector, client)
        with at_work(worker):
            until(lambda: sorted(arrived(collector)) == list(range(6)) and left(rdb) == [])
    assert (sorted(rdb.lrange(DEAD, 0, -1)), worker.dead_events) == (sorted(bad), 6)


def test_an_entry_of_10_mb_is_sent_alone(rdb: Any, collector: Collector) -> None:
    rdb.rpush("snowplow", event(0), json.dumps({"n": "1", "big": "x" * 10_000_000}), event(2))
    with at_work(make(collector, rdb)):
        until(lambda: sorted(arrived(collector)) == [0, 1, 2] and left(rdb) == [])


def test_an_entry_that_fits_no_buffer_goes_to_the_dead_list(rdb: Any, collector: Collector) -> None:
    rdb.rpush("snowplow", json.dumps({"n": "1", "big": "x" * 5000}), event(2))
    with at_work(make(collector, rdb, max_buffer_bytes=4096)):
        until(lambda: arrived(collector) == [2] and left(rdb) == [])
    assert rdb.llen(DEAD) == 1


@needs_reference_0_15
def test_events_of_the_references_emitter_are_sent(
    server: RedisServer, rdb: Any, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        import sys, redis, warnings
        warnings.simplefilter("ignore")
        from snowplow_tracker.redis.redis_emitter import RedisEmitter
        emitter = RedisEmitter(redis.StrictRedis(port=int(sys.argv[1])))
        for number in range(5):
            emitter.input({"n": str(number), "s": "\\u00fc", "i": 7})
    """
    ended = runner_with_0_15(tmp_path, monkeypatch)(script, str(server.port))
    assert ended.status == 0, ended.errors
    with at_work(make(collector, rdb)):
        until(lambda: len(collector.events) == 5)
    assert [(each["n"], each["s"], each["i"]) for each in collector.events] == [(str(n), "ü", "7") for n in range(5)]


# -- several workers, and dead ones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 8])
def test_workers_share_a_list_and_send_each_event_once(rdb: Any, collector: Collector, count: int) -> None:
    put(rdb, 3000)
    with at_work(*[make(collector, rdb, buffer_capacity=100) for _ in range(count)]):
        until(lambda: len(arrived(collector)) >= 3000 and left(rdb) == [], 20)
    assert sorted(arrived(collector)) == list(range(3000))


def test_what_a_dead_worker_had_goes_first_in_order(rdb: Any, collector: Collector) -> None:
    put(rdb, 10)
    dead = RedisWorker(Emitter(collector.url), rdb, takeover_after=0.2)
    assert len(dead._redis.take(0, 6, 10**6)) == 6  # type: ignore[arg-type]
    with at_work(make(collector, rdb, takeover_after=0.2)):
        until(lambda: sorted(arrived(collector)) == list(range(10)) and left(rdb) == [])


def test_nobody_takes_what_a_live_worker_holds(rdb: Any, collector: Collector) -> None:
    put(rdb, 10)
    slow = RedisWorker(Emitter("http://127.0.0.1:9", shutdown_timeout=0), rdb, poll_interval=0.01, takeover_after=0.4)
    with at_work(slow):
        until(lambda: rdb.llen("snowplow") == 0)
        other = make(collector, rdb, takeover_after=0.4)
        with at_work(other):
            began = time.monotonic()
            until(lambda: time.monotonic() - began > 1.5)
        assert (arrived(collector), other.recovered_events) == ([], 0)


def test_a_worker_that_was_taken_for_dead_forgets_nobodys_events(rdb: Any, collector: Collector) -> None:
    collector.respond(delay=0.3)
    put(rdb, 10)
    worker = make(collector, rdb)
    with at_work(worker):
        until(lambda: rdb.llen("snowplow") == 0)
        rdb.delete(worker._redis._alive)
        # Another has put them back, and this one takes them again: twice, but not never.
        until(lambda: len(arrived(collector)) >= 10)
        for name in rdb.smembers("{snowplow}:workers"):
            worker._redis.recover(name.decode())
        until(lambda: left(rdb) == [])
    assert set(arrived(collector)) == set(range(10))


class Process:
    def __init__(self, port: int, url: str, **settings: Any) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry),
        }
        program = Path(__file__).parents[1] / "support" / "redis_worker_process.py"
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(port), url, json.dumps(settings)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> Process:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode, rest


KILLS = int(os.environ.get("FASTEMIT_REDIS_KILLS", "50"))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_books_balance_after_a_worker_was_killed_50_times(server: RedisServer, rdb: Any, collector: Collector) -> None:
    # One process forks a worker for each round: starting 50 interpreters would be most of the time.
    rng = random.Random(1)
    for status in [503, 200, 200, 200] * 3:
        collector.respond(status)
    total = interrupted = 0
    for _ in range(KILLS):
        put(rdb, 60, total)
        total += 60
        waiting = rdb.llen("snowplow")
        child = os.fork()
        if child == 0:
            try:
                client = redis.Redis(port=server.port)
                emitter = AsyncEmitter(collector.url, thread_count=2, max_retry_delay_seconds=0.02, buffer_capacity=50)
                RedisWorker(emitter, client, poll_interval=0.002, takeover_after=0.1).run()
            finally:
                os._exit(0)
        if rng.random() < 0.8:
            # It has taken some: on a busy machine that is a while after the fork.
            until(lambda waiting=waiting: rdb.llen("snowplow") < waiting, PATIENCE)  # type: ignore[misc]
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += any(key != "snowplow" for key in left(rdb))
    assert interrupted > KILLS / 5
    with at_work(make(collector, rdb, takeover_after=0.1)):
        until(lambda: left(rdb) == [], PATIENCE)
    assert set(arrived(collector)) == set(range(total))
    assert rdb.llen(DEAD) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_it_had_sent(
    server: RedisServer, rdb: Any, collector: Collector, number: int
) -> None:
    worker = Process(server.port, collector.url, poll_interval=0.01).ready()
    put(rdb, 500)
    until(lambda: len(collector.requests) > 0, PATIENCE)
    assert worker.end(number) == (0, "ended\n")
    rest = [int(json.loads(each)["n"]) for each in rdb.lrange("snowplow", 0, -1)]
    assert sorted(arrived(collector) + rest) == list(range(500))
    assert [key for key in left(rdb) if key != "snowplow"] == []


def test_a_shutdown_asked_for_before_run_holds(rdb: Any, collector: Collector) -> None:
    put(rdb, 5)
    worker = make(collector, rdb)
    worker.request_shutdown()
    worker.run()
    assert rdb.llen("snowplow") == 5


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_the_earlier_signal_handlers_are_put_back(rdb: Any, collector: Collector) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    worker = make(collector, rdb)
    threading.Timer(0.1, worker.request_shutdown).start()
    worker.run()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# -- what Redis may do -------------------------------------------------------------------------------------------------


def test_a_full_redis_can_be_emptied(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, "--maxmemory-policy", "noeviction") as server, server.client() as rdb:
        rdb.rpush("snowplow", "nonsense")
        put(rdb, 2000)
        rdb.config_set("maxmemory", "1")
        with pytest.raises(redis.RedisError):
            rdb.rpush("snowplow", "x")
        with at_work(make(collector, rdb, buffer_capacity=300)):
            until(lambda: len(arrived(collector)) == 2000 and left(rdb) == [], 20)
        assert rdb.llen(DEAD) == 1


def test_dead_workers_are_found_in_a_full_redis(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, "--maxmemory-policy", "noeviction") as server, server.client() as rdb:
        put(rdb, 10)
        RedisWorker(Emitter(collector.url), rdb, takeover_after=0.1)._redis.take(0, 10, 10**6)
        rdb.config_set("maxmemory", "1")
        with at_work(make(collector, rdb, takeover_after=0.1)):
            until(lambda: sorted(arrived(collector)) == list(range(10)) and left(rdb) == [])


def test_redis_killed_and_restarted_with_its_data(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path) as server, server.client() as rdb:
        put(rdb, 1000)
        worker = make(collector, rdb, buffer_capacity=50, takeover_after=0.5)
        with at_work(worker):
            for number in range(3):
                until(lambda number=number: len(arrived(collector)) > 100 * number)  # type: ignore[misc]
                server.kill()
                server.start()
            until(lambda: left(rdb) == [], 20)
        assert set(arrived(collector)) == set(range(1000))


def test_connections_cut_at_random_moments_lose_nothing(server: RedisServer, rdb: Any, collector: Collector) -> None:
    rng = random.Random(2)
    put(rdb, 1500)
    with (
        Relay(server.port) as relay,
        redis.Redis(port=relay.port, **QUICK) as client,
        at_work(make(collector, client, buffer_capacity=100)),
    ):
        while left(rdb):
            # Somewhere in the next answers.
            relay.answer_bytes = rng.randrange(20_000)
            time.sleep(rng.random() * 0.02)
            relay.answer_bytes = None
            time.sleep(0.05)
    assert set(arrived(collector)) == set(range(1500))
    assert rdb.llen(DEAD) == 0


@pytest.mark.parametrize("seed", range(3))
def test_steps_that_were_done_and_never_answered_lose_nothing(
    server: RedisServer, rdb: Any, collector: Collector, seed: int
) -> None:
    rng = random.Random(seed)

    class Forgetful(redis.Redis):  # type: ignore[misc]
        def execute_command(self, *arguments: Any, **options: Any) -> Any:
            answer = super().execute_command(*arguments, **options)
            if rng.random() < 0.2:
                raise redis.ConnectionError("no answer")
            return answer

    for number in range(400):
        rdb.rpush("snowplow", event(number), *(["bad"] if number % 50 == 0 else []))
    with Forgetful(port=server.port, **QUICK) as client, at_work(make(collector, client, buffer_capacity=20)):
        until(lambda: left(rdb) == [], 20)
    assert sorted(arrived(collector)) == list(range(400))
    assert rdb.llen(DEAD) == 8


def test_the_wrong_type_at_the_key_is_told_and_waited_for(
    rdb: Any, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    rdb.set("snowplow", "a string")
    with at_work(make(collector, rdb)):
        until(lambda: "WRONGTYPE" in caplog.text)
        rdb.delete("snowplow")
        put(rdb, 3)
        until(lambda: len(arrived(collector)) == 3)


# -- names and arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [("snowplow", "{snowplow}:dead"), ("a{b}c", "a{b}c:dead"), ("{b}", "{b}:dead"), ("a{}b", "{a{}b}:dead")],
)
def test_keys_beside_the_list_have_its_hash_tag(key: str, expected: str) -> None:
    assert beside(key, "dead") == expected
    if key != "a{}b":
        assert redis.cluster.key_slot(expected.encode()) == redis.cluster.key_slot(key.encode())


def test_only_a_fastemit_emitter_will_do(rdb: Any) -> None:
    with pytest.raises(TypeError, match=r"fastemit\.Emitter"):
        RedisWorker(object(), rdb)  # type: ignore[arg-type]


def test_emitter_and_worker_together(rdb: Any, collector: Collector) -> None:
    with at_work(make(collector, rdb)), RedisEmitter(rdb, batch_size=20) as emitter:
        for number in range(1000):
            emitter.input(json.loads(event(number)))
        emitter.flush()
        until(lambda: len(arrived(collector)) == 1000)
    assert arrived(collector) == list(range(1000))
