"""A worker in a process of its own, for tests that kill it: port, collector, then settings as JSON."""

import json
import sys

import redis

from fastemit import AsyncEmitter, RedisWorker

port, url, settings = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
emitter = AsyncEmitter(url, thread_count=2, max_retry_delay_seconds=0.1, buffer_capacity=200)
print("ready", flush=True)
RedisWorker(emitter, redis.Redis(port=port), **settings).run()
print("ended", flush=True)
