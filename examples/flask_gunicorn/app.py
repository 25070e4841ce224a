"""A shop that tracks each request."""

import os

from flask import Flask, Response, request
from snowplow_tracker import PageView, Subject

from fastemit import Emitter, Tracker

emitter = Emitter(
    os.environ.get("SNOWPLOW_COLLECTOR", "http://127.0.0.1:9090"),
    # No visitor waits for tracking: a full buffer drops the new event.
    overflow="drop_newest",
    flush_interval=1,
)
tracker = Tracker(namespace="shop", app_id="shop-web", emitters=emitter)
app = Flask(__name__)


@app.after_request
def track(response: Response) -> Response:
    subject = Subject().set_platform("srv").set_useragent(request.headers.get("User-Agent", ""))
    if request.remote_addr:
        subject.set_ip_address(request.remote_addr)
    tracker.track(PageView(page_url=request.url, event_subject=subject))
    return response


@app.get("/products/<int:number>")
def product(number: int) -> str:
    return f"product {number}"
