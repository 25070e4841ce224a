"""What docs/parameters.md says of an endpoint with credentials, or with an `@` in its path, is so."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastemit import Emitter
from fastemit._transport import parse_endpoint
from tests.support.pages import ROOT, blocks

PAGE = "docs/parameters.md"
ROWS = re.findall(r"^\| `(https://[^`]+)` \| (.+) \|$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_has_addresses_of_both_kinds() -> None:
    assert {said.startswith("is taken") for _, said in ROWS} == {True, False}


@pytest.mark.parametrize(("endpoint", "said"), ROWS)
def test_an_address_of_the_table_is_taken_or_refused(endpoint: str, said: str) -> None:
    if said.startswith("is taken"):
        user = re.search("user name is `(.+)`", said)
        assert parse_endpoint(endpoint).username == (user and user[1])
    else:
        with pytest.raises(ValueError, match="the slash before its last @ may belong to a password"):
            parse_endpoint(endpoint)


def test_the_snippet_gives_the_credentials_unchanged() -> None:
    (snippet,) = (found for found in blocks(PAGE) if "quote(password" in found.text)
    names: dict[str, Any] = {}
    exec(compile(snippet.text, PAGE, "exec"), names)
    emitter: Emitter = names["emitter"]
    assert emitter.endpoint.startswith("https://collector.example.com/prefix/")
    address = emitter._endpoint
    assert (address.username, address.password) == (names["user"], names["password"])
    emitter.close()


@pytest.mark.parametrize("character", "/@?#%[] ")
def test_each_character_that_is_to_be_encoded_is_taken_when_it_is(character: str) -> None:
    said = (ROOT / PAGE).read_text(encoding="utf-8")
    code = f"%{ord(character):02X}"
    assert re.search(rf"(`{re.escape(character)}`|a space)\s+is\s+(written\s+)?`{code}`", said)
    assert parse_endpoint(f"https://u:a{code}b@collector.example.com").password == f"a{character}b"
    try:
        raw = parse_endpoint(f"https://u:a{character}b@collector.example.com").password
    except ValueError:
        return
    # Taken as it is, because nothing follows that makes it another address.
    assert raw == f"a{character}b"
