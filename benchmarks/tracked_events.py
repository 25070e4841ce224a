"""The events that are made and tracked, each by a function, since an event is made for one `track`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snowplow_tracker import PageView, SelfDescribing, SelfDescribingJson, StructuredEvent, Subject


def subject() -> Any:
    return Subject().set_platform("web").set_user_id("visitor-19").set_lang("en-GB")


def page_view() -> Any:
    return PageView("https://shop.example.com/tea", "Green tea, all sorts", "https://search.example.com/")


def structured() -> Any:
    return StructuredEvent("shop", "add-to-basket", label="Green tea, all sorts", value=12.5)


def self_describing() -> Any:
    return SelfDescribing(
        SelfDescribingJson(
            "iglu:com.example.shop/purchase/jsonschema/1-0-0", {"order": 7, "total": 12.5, "currency": "EUR"}
        ),
        context=[
            SelfDescribingJson(
                "iglu:com.example.shop/page/jsonschema/1-0-0",
                {"url": "https://shop.example.com/tea", "tags": ["green", "tea"]},
            )
        ],
    )


EVENTS: dict[str, Callable[[], Any]] = {
    "page view": page_view,
    "page view with a Subject": page_view,
    "structured": structured,
    "self-describing with a context": self_describing,
}
