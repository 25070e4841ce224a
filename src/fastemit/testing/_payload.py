"""What a request to a collector carries, and whether its events follow the rules."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

POST_PATH = "/com.snowplowanalytics.snowplow/tp2"
GET_PATH = "/i"

# A pipeline takes every 1-0-x envelope and judges its events by the newest version, 1-0-4.
_SCHEMA = re.compile(r"iglu:com\.snowplowanalytics\.snowplow/payload_data/jsonschema/1-0-[0-4]")

REQUIRED = ("tv", "p", "e")

# No tracker comes near this limit. Python's own limit depends on the stack of the thread that parses, and JSON just
# below it could be parsed, but not written again.
MAX_NESTING = 100
TOO_DEEP = f"nested more than {MAX_NESTING} levels deep"

# iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4 has `additionalProperties: false`: an
# event with any other name in it becomes a failed event.
PROPERTIES = frozenset(
    """
    tna aid p dtm tz e tid eid tv duid nuid uid vid ip res url page refr fp ctype cookie lang f_pdf f_qt
    f_realp f_wma f_dir f_fla f_java f_gears f_ag cd ds cs vp mac pp_mix pp_max pp_miy pp_may ad_ba ad_ca
    ad_ad ad_uid tr_id tr_af tr_tt tr_tx tr_sh tr_ci tr_st tr_co tr_cu ti_id ti_sk ti_nm ti_na ti_ca ti_pr
    ti_qu ti_cu sa sn st sp se_ca se_ac se_la se_pr se_va ue_na ue_pr ue_px co cx ua tnuid stm sid ttm
    """.split()  # noqa: SIM905  80 quoted names would take a line each
)

_JSON_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
    str: "string",
}


class Decoded(NamedTuple):
    """The content of one request: its items (events, if all is well), or else what is wrong with the request."""

    items: list[Any]
    error: str | None


def carries_events(method: str, path: str) -> bool:
    """Whether a request comes from a tracker: POST to `.../tp2` or GET of `.../i`, with any prefix."""
    return (method == "POST" and path.endswith(POST_PATH)) or (method == "GET" and path.endswith(GET_PATH))


def decode(method: str, path: str, query: str, body: bytes) -> Decoded:
    """Take a tracker's request apart. For any other request there are no items and no error."""
    if not carries_events(method, path):
        return Decoded([], None)
    return _decode_query(query) if method == "GET" else _decode_envelope(body)


def _decode_query(query: str) -> Decoded:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return Decoded([], "the query string is not UTF-8")
    if not pairs:
        return Decoded([], "the query string is empty: no event in it")
    return Decoded([dict(pairs)], None)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads` for what anybody may have sent. Raises only `ValueError`; `TOO_DEEP` is for too deep nesting."""
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return value
    raise ValueError(TOO_DEEP)


def _decode_envelope(body: bytes) -> Decoded:
    try:
        # Decoded first, because `json.loads` of bytes accepts encoded surrogates and UTF-16, which a collector refuses.
        envelope = parse_json(body.decode("utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        # The message of a decoding error has only a position, so that no payload gets into logs.
        if isinstance(error, json.JSONDecodeError):
            reason = error.msg
        else:
            reason = TOO_DEEP if str(error) == TOO_DEEP else type(error).__name__
        return Decoded([], f"the body is not JSON: {reason}")
    if not isinstance(envelope, dict) or "schema" not in envelope or "data" not in envelope:
        return Decoded([], "the body is not a self-describing JSON: an object with schema and data is expected")
    schema, data = envelope["schema"], envelope["data"]
    if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema):
        return Decoded([], "the schema of the body is not payload_data 1-0-0 to 1-0-4")
    if not isinstance(data, list):
        return Decoded([], f"data: array expected, {_type_name(data)} found")
    if not data:
        return Decoded([], "data: at least 1 item expected, 0 found")
    return Decoded(data, None)


def judge(event: object) -> list[str]:
    """What is wrong with one event by payload_data 1-0-4; empty if it is good. It names properties, but no values."""
    if not isinstance(event, dict):
        return [f"object expected, {_type_name(event)} found"]
    errors = [f"required property {name!r} is missing" for name in REQUIRED if name not in event]
    for name, value in event.items():
        if name not in PROPERTIES:
            errors.append(f"property {name!r} is not defined in payload_data 1-0-4")
        if not isinstance(value, str):
            errors.append(f"property {name!r}: string expected, {_type_name(value)} found")
    return errors


def _type_name(value: object) -> str:
    return _JSON_TYPES.get(type(value), type(value).__name__)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity, which only Python takes for JSON
