"""The events of the demo: what a web shop would track, the same ones on every run."""

from __future__ import annotations

import random
from collections.abc import Iterator

from snowplow_tracker import PageView, SelfDescribing, SelfDescribingJson, StructuredEvent, Subject
from snowplow_tracker.events import Event

_PAGES = (
    ("/", "Home"),
    ("/cafe/creme-brulee", "Crème brûlée — café à la carte"),
    ("/tea/green", "緑茶と抹茶"),
    ("/books/war-and-peace", "Война и мир"),
    ("/sale", 'Today only: "20 % off" & more \N{PARTY POPPER}'),
    ("/arabic", "كتب ومجلات"),
)
_ACTIONS = ("add-to-basket", "remove-from-basket", "search", "share", "play-video")
_LANGUAGES = ("en-GB", "de-DE", "fr-FR", "ja-JP", "ru-RU", "ar-EG")
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"


def events(count: int) -> Iterator[Event]:
    """`count` events of 40 visitors: half page views, a quarter structured, a quarter self-describing."""
    chance = random.Random(20)
    visitors = [_visitor(number) for number in range(40)]
    for number in range(count):
        visitor = chance.choice(visitors)
        path, title = chance.choice(_PAGES)
        url = f"https://shop.example.com{path}?item={number}"
        if number % 4 in (0, 2):
            yield PageView(url, title, referrer="https://search.example.com/?q=tea+caf%C3%A9", event_subject=visitor)
        elif number % 4 == 1:
            yield StructuredEvent(
                "shop", chance.choice(_ACTIONS), label=title, value=chance.randrange(500) / 4, event_subject=visitor
            )
        else:
            yield SelfDescribing(
                SelfDescribingJson(
                    "iglu:com.example.shop/purchase/jsonschema/1-0-0",
                    {"order": number, "total": chance.randrange(9_999) / 100, "currency": "EUR", "title": title},
                ),
                context=_contexts(chance, url),
                event_subject=visitor,
                true_timestamp=1_767_225_600_000 + number,
            )


def _visitor(number: int) -> Subject:
    subject = Subject().set_platform("web").set_user_id(f"müller-{number}").set_lang(_LANGUAGES[number % 6])
    subject.set_domain_user_id(f"{number:016x}").set_timezone("Europe/Berlin").set_useragent(_AGENT)
    subject.set_screen_resolution(1920, 1080).set_viewport(1440, 900).set_ip_address(f"192.0.2.{number}")
    return subject


def _contexts(chance: random.Random, url: str) -> list[SelfDescribingJson]:
    page = SelfDescribingJson("iglu:com.example.shop/page/jsonschema/1-0-0", {"url": url, "tags": ["té", "café", "茶"]})
    if chance.random() < 0.5:
        return [page]
    basket = {"items": [{"sku": f"sku-{n}", "price": chance.randrange(5_000) / 100} for n in range(3)]}
    return [page, SelfDescribingJson("iglu:com.example.shop/basket/jsonschema/1-0-0", basket)]
