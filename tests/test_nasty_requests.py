"""Hundreds of nasty bodies, headers and paths: each is answered below 500, in the API's own words, without a trace."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from customers.models import Customer
from metrics.models import Metric
from usage.definitions import create_usage_event
from usage.models import IngestBatch, UsageEvent, UsageRecord

GOOD = '{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{"a":1}}'

# JSON values, and what only looks like one, that somebody will send one day.
VALUES = [
    *[
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1e-400",
        "9" * 65,
        "9" * 5_000,
        "1" * 64 + "e9",
        "-0",
        "-0.0",
    ],
    *["1e99999999999999999999", "0e99999999999999999999", str(2**70), "01", "1.", ".5", "+1", "1e", "0x1", "1_000"],
    *[
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"a\\ud83dz"',
        '"\\u0000"',
        '"a\\u0000b"',
        '"\\ud83d\\ude00"',
        '"\x00"',
        '"\x01"',
    ],
    *[
        '""',
        '" "',
        '"' + "x" * 70_000 + '"',
        '"\\x"',
        '"',
        "'a'",
        "null",
        "true",
        "false",
        "undefined",
        "{}",
        "[]",
        "{",
        "]",
    ],
    *["[" * depth + "]" * depth for depth in (10, 65, 100, 900, 1_000, 10_000, 100_000)],
    *['{"a":' * depth + "1" + "}" * depth for depth in (10, 65, 100, 900, 1_000, 10_000, 100_000)],
    *['{"a":1,"a":2}', '{"a":1,"a":"\\u0000"}', '{"":1}', '{"\\ud800":1}', '{"\\u0000":1}', '{"a":1,}', "[1,]", "[,]"],
    *['{"__proto__":{}}', '{"$ref":"#"}', '["\\u202e"]', '"%s%n"', '"\'; DROP TABLE x; --"', '"{{7*7}}"', '"../../x"'],
    *['"now"', '"2025-06-17"', '"2016-12-31T23:59:60Z"', '"2025-06-17T14:03:12+24:00"', '"0001-01-01T00:00:00+23:59"'],
    *['"9999-12-31T23:59:59-23:59"', '"2025-06-17T14:03:12+99:99"', '"٢٠٢٥-06-17T14:03:12Z"', "1750168992", '"0"'],
]
BODIES = [
    *[
        b"",
        b" ",
        b"\n\n",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.encode("utf-16"),
        GOOD.encode("utf-32"),
    ],
    *[
        GOOD.encode("utf-16-le"),
        GOOD.encode() * 2,
        GOOD.encode() + b"\n" + GOOD.encode(),
        GOOD.encode()[:-1],
        b"a=1&b=2",
    ],
    *[
        b"[" + GOOD.encode() + b",]",
        b"[" + GOOD.encode(),
        GOOD.encode() + b"\x00",
        b"\x1f\x8b\x08\x00",
        b"\xed\xa0\x80",
    ],
    *[b'"\xc3\x28"', b"<xml/>", b"{" * 100_000, b'[{"a":' * 50_000, b"-", b"\xf4\x90\x80\x80", GOOD.encode("utf-7")],
]


@pytest.fixture
def stream(organisation: Any) -> UsageEvent:
    return create_usage_event(organisation, name="Stream", slug="stream", schema={"type": "object"})


def placed(template: dict[str, str], value: str) -> Iterator[str]:
    """The template's text with the value in the place of each field, and as a field's name."""
    for name in template:
        yield "{" + ",".join(f'"{field}":{value if field == name else text}' for field, text in template.items()) + "}"
    if value.startswith('"'):
        yield "{" + ",".join(f'"{field}":{text}' for field, text in template.items()) + f",{value}:1}}"


def check(answer: Any, what: Any) -> None:
    """Below 500, and in the API's own words: problem details, or an answer for each record."""
    assert answer.status_code < 500, what
    kind = answer["Content-Type"]
    assert (
        kind == "application/problem+json"
        or (kind == "application/json" and answer.status_code < 400)
        or (answer.status_code in (409, 422) and answer.json()["errors"])
    ), what
    if kind == "application/problem+json":
        told = answer.json()
        assert told["status"] == answer.status_code
        assert told["type"] == "about:blank"
    answer.content.decode()


def test_nasty_bodies_of_records(client: Client, stream: UsageEvent, headers: dict[str, str]) -> None:
    fields = {"customer_id": '"c"', "timestamp": '"2025-06-17T14:03:12Z"', "data": '{"a":1}', "id": '"i"'}
    record_texts = [text for value in VALUES for text in placed(fields, value)]
    inner = [GOOD.replace('{"a":1}', '{"a":' + value + "}") for value in VALUES]
    bodies = [text.encode() for text in VALUES] + BODIES
    mixed = [
        b"[" + body + b"," + GOOD.encode() + b"]"
        for body in [*bodies, *(text.encode() for text in record_texts + inner)]
    ]
    counted = 0

    for body in bodies + mixed:
        answer = client.generic("POST", "/usage/stream", body, CONTENT_TYPE="application/json", headers=headers)
        check(answer, body[:200])
        counted += answer.json().get("accepted", 0)
    assert UsageRecord.objects.count() == counted > 50
    assert sum(IngestBatch.objects.values_list("accepted", flat=True)) == counted
    for stored in UsageRecord.objects.all():
        assert isinstance(stored.data, dict)


def test_nasty_bodies_of_definitions(client: Client, stream: UsageEvent, headers: dict[str, str]) -> None:
    usage_event = {"name": '"N"', "slug": '"n"', "schema": '{"type":"object"}'}
    metric = {
        "code": '"m"',
        "name": '"M"',
        "usage_event": '"stream"',
        "aggregation": '"sum"',
        "property": '"x"',
        "unit": '""',
    }
    keywords = ["properties", "$ref", "$schema", "pattern", "enum", "multipleOf"]
    schemas = ['{"type":"object","%s":%s}' % (keyword, value) for keyword in keywords for value in VALUES]  # noqa: UP031

    for path, template in (("/api/usage-events/", usage_event), ("/api/metrics/", metric)):
        texts = [text for value in VALUES for text in placed(template, value)]
        texts += [
            '{"name":"N","slug":"n","schema":' + schema + "}" for schema in schemas if path == "/api/usage-events/"
        ]
        for body in [*(text.encode() for text in [*VALUES, *texts]), *BODIES]:
            answer = client.generic("POST", path, body, CONTENT_TYPE="application/json", headers=headers)
            check(answer, body[:200])
            assert answer.status_code in (201, 400, 413), body[:200]
    assert Metric.objects.count() == 0
    for defined in UsageEvent.objects.all():
        answer = client.get(f"/api/usage-events/{defined.slug}/", headers=headers)
        assert json.loads(answer.content)["schema"]["type"] == "object"


HEADER_VALUES = [
    "",
    " ",
    "\xff",
    "é",
    "\x00",
    "\r\nx: y",
    "a" * 70_000,
    "null",
    "0",
    "-1",
    "%00",
    "\xe2\x80\xa8",
    "'",
    "{}",
    ";;;",
    ",",
    "*",
]
HEADERS = [
    "organisation",
    "x-api-key",
    "Content-Type",
    "Content-Encoding",
    "Accept",
    "Accept-Language",
    "Prefer",
    "Cookie",
    "Range",
]
HEADERS += [
    "Idempotency-Key",
    "If-None-Match",
    "If-Modified-Since",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "Authorization",
    "Origin",
]
PATHS = ["/usage/stream", "/api/usage-events/", "/api/usage-events/stream/", "/api/metrics/", "/api/metrics/m/"]
PATHS += ["/api/metrics/m/quantities/", "/api/metrics/m/activate/", "/api/metrics/preview/"]


def test_nasty_headers(client: Client, stream: UsageEvent, headers: dict[str, str]) -> None:
    for name in HEADERS:
        for value in HEADER_VALUES:
            for path in PATHS[:2]:
                for method in ("POST", "GET"):
                    answer = client.generic(method, path, GOOD, "application/json", headers={**headers, name: value})
                    check(answer, (method, path, name, value[:50]))
    for length in ("", "x", "0", "1"):
        for path in PATHS[:2]:
            answer = client.generic("POST", path, GOOD, "application/json", headers=headers, CONTENT_LENGTH=length)
            check(answer, (path, length))


@pytest.mark.parametrize("signed", [True, False])
def test_every_method_on_every_address(
    client: Client, stream: UsageEvent, headers: dict[str, str], signed: bool
) -> None:
    allowed = {"/usage/stream": {"POST"}, "/api/usage-events/": {"GET", "POST"}, "/api/metrics/": {"GET", "POST"}}
    allowed["/api/metrics/m/activate/"] = {"POST"}
    allowed["/api/metrics/m/"] = {"GET", "PATCH"}
    allowed["/api/metrics/preview/"] = {"POST"}
    allowed["/api/usage-events/stream/"] = {"GET", "PATCH"}
    for path in PATHS:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "É"):
            answer = client.generic(method, path, GOOD, "application/json", headers=headers if signed else {})
            what = (method, path, answer.status_code)
            assert answer.status_code < 500, what
            if not signed:
                assert answer.status_code == 401, what
            elif method not in {"OPTIONS", "HEAD", *allowed.get(path, {"GET"})}:
                assert answer.status_code == 405, what
    if not signed:
        assert not UsageRecord.objects.exists()


NAMES = [
    "%00",
    "stream%00",
    ".",
    "..",
    "...",
    "stream.json",
    "%2e%2e",
    "%2F",
    "a/b",
    "a%2Fb",
    "é",
    "%ff",
    "%ED%A0%80",
    "a b",
    "+",
]
NAMES += [
    "s" * 10_000,
    "-",
    "_",
    "%",
    "%zz",
    "%u0000",
    "stream;x=1",
    "stream%0A",
    "stream%20",
    "'",
    '"',
    "<script>",
    "{}",
    "*",
    "@",
    "~",
]


def test_nasty_paths(client: Client, stream: UsageEvent, headers: dict[str, str]) -> None:
    for name in NAMES:
        name = quote(name, safe="%/+;='\"<>{}*@~")
        for path, method in (
            (f"/usage/{name}", "POST"),
            (f"/api/usage-events/{name}/", "GET"),
            (f"/api/metrics/{name}/", "GET"),
            (f"/api/metrics/{name}/quantities/", "GET"),
            (f"/api/metrics/{name}/activate/", "POST"),
            (f"/api/{name}/", "GET"),
        ):
            answer = client.generic(method, path, GOOD, "application/json", headers=headers)
            assert answer.status_code in ((400, 404) if "quantities" in path else (404,)), path
            check(answer, path)
    assert not UsageRecord.objects.exists()
    assert not Customer.objects.exists()


def test_nasty_queries(client: Client, stream: UsageEvent, headers: dict[str, str]) -> None:
    Metric.objects.create(
        organisation=stream.organisation, usage_event=stream, code="m", name="M", aggregation="count", status="active"
    )
    names = ["start", "end", "window", "timezone", "customer_id", "page_size", "cursor", "x", ""]
    values = [
        "",
        "%00",
        "%ff",
        "%ED%A0%80",
        "9" * 5_000,
        "1e400",
        "NaN",
        "[]",
        "{}",
        "%22",
        "'",
        "a" * 70_000,
        "-1",
        "0",
        "1.5",
    ]
    values += ["0001-01-01", "9999-12-31", "2025-06-17T14:03:60Z", "%D9%A2", "..%2F..", "null", "true", "2025-06-01"]
    base = {"start": "2025-06-01", "end": "2025-07-01"}
    for name in names:
        for value in values:
            query = "&".join(f"{key}={text}" for key, text in {**base, name: value}.items())
            for path in ("/api/metrics/m/quantities/", "/api/usage-events/", "/api/metrics/"):
                answer = client.get(f"{path}?{query}&{name}={value}", headers=headers)
                check(answer, (path, name, value[:50]))
