"""One side of a comparison over Redis, in a process of its own: side, port, collector, what, how many.

Prints the seconds that it took. The reference runs with snowplow-tracker 0.15.0 on its path.
"""

import logging
import sys
import threading
import time
import warnings

import redis
from bench_support import PAGE_VIEW_WITH_INT

side, port, url, what, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
rdb = redis.Redis(port=port)
warnings.simplefilter("ignore")


def reference_emitter():
    from snowplow_tracker.redis.redis_emitter import RedisEmitter

    # The reference logs an INFO line for each event by default. The time to print it must not count.
    logging.disable(logging.INFO)
    return RedisEmitter(rdb)


def push(emitter):
    started = time.perf_counter()
    for _ in range(count):
        emitter.input(PAGE_VIEW_WITH_INT)
    emitter.sync_flush()
    return time.perf_counter() - started


def work(worker):
    """Until the list is empty and nothing is in flight; the time until then, from the word on."""
    ended = []

    def watch():
        while rdb.llen("snowplow") or next(rdb.scan_iter("{snowplow}:inflight:*"), None):
            time.sleep(0.002)
        ended.append(time.perf_counter())
        worker.request_shutdown()

    print("ready", flush=True)
    sys.stdin.readline()
    threading.Thread(target=watch, daemon=True).start()
    started = time.perf_counter()
    worker.run()
    return ended[0] - started


if what.startswith("push"):
    if side == "reference":
        made = reference_emitter()
    else:
        from fastemit import RedisEmitter

        made = RedisEmitter(rdb, batch_size=int(what[4:]))
    print("ready", flush=True)
    sys.stdin.readline()
    seconds = push(made)
elif side == "reference":
    from gevent import monkey

    monkey.patch_all()
    from snowplow_tracker import Emitter
    from snowplow_tracker.redis.redis_worker import RedisWorker as ReferenceWorker

    logging.disable(logging.INFO)
    seconds = work(ReferenceWorker(Emitter(url), redis.Redis(port=port)))
else:
    from fastemit import Emitter, RedisWorker

    seconds = work(RedisWorker(Emitter(url), rdb))
print(seconds)
