"""A shop API that tracks each request, and each order."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from snowplow_tracker import PageView, StructuredEvent, Subject

from fastemit import Emitter, Tracker


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # The event loop must never wait: a full buffer drops the new event.
    emitter = Emitter(
        os.environ.get("SNOWPLOW_COLLECTOR", "http://127.0.0.1:9090"),
        overflow="drop_newest",
        flush_interval=1,
    )
    app.state.emitter = emitter
    app.state.tracker = Tracker(namespace="shop", app_id="shop-api", emitters=emitter)
    yield
    left = await emitter.aclose()
    print(f"tracking: {emitter.stats().sent_events} events sent, {left} left", flush=True)


app = FastAPI(title="Shop", lifespan=lifespan)


def visitor(request: Request) -> Subject:
    """Who asks."""
    subject = Subject().set_platform("srv").set_useragent(request.headers.get("User-Agent", ""))
    if request.client is not None:
        subject.set_ip_address(request.client.host)
    return subject


@app.middleware("http")
async def track(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    if request.url.path != "/health":
        request.app.state.tracker.track(PageView(page_url=str(request.url), event_subject=visitor(request)))
    return response


@app.get("/products/{number}")
async def product(number: int) -> dict[str, int]:
    return {"product": number}


@app.post("/orders/{number}")
async def order(number: int, request: Request) -> dict[str, int]:
    event = StructuredEvent(category="shop", action="order", label=str(number), event_subject=visitor(request))
    request.app.state.tracker.track(event)
    return {"order": number}


@app.get("/health")
async def health(request: Request, response: Response) -> dict[str, Any]:
    stats = request.app.state.emitter.stats()
    if stats.retry_delay > 0:
        response.status_code = 503
    return {"queued": stats.queued_events, "sent": stats.sent_events, "last_error": stats.last_error}
