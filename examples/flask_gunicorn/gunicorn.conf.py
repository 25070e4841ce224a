"""gunicorn's settings: four workers of a preloaded application, and a port with metrics for each of them."""

import os
from typing import Any

bind = "127.0.0.1:8000"
workers = 4
preload_app = True
graceful_timeout = 30


def post_worker_init(worker: Any) -> None:
    """Serve the metrics of this worker at the first port that no other worker has."""
    from app import emitter
    from prometheus_client import REGISTRY, start_http_server

    from fastemit.contrib.prometheus import EmitterCollector

    REGISTRY.register(EmitterCollector(emitter))
    first = int(os.environ.get("METRICS_PORT", "9100"))
    # Twice as many as workers: one that is being replaced still has its own.
    for port in range(first, first + 2 * workers):
        try:
            start_http_server(port, "127.0.0.1")
        except OSError:
            continue
        worker.log.info("metrics at port %d", port)
        return
    worker.log.warning("no port for metrics is free")
