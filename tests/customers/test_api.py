"""What every API answer has in common: exact JSON, problem details, pages."""

import base64
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import InterfaceError, OperationalError
from django.http import UnreadablePostError
from django.test import Client
from rest_framework.exceptions import NotFound, ParseError, ValidationError

from customers.api import ExactJSONParser, ExactJSONRenderer, TooLarge, problem, problem_details, read_body
from tests.conftest import Post
from usage.definitions import create_usage_event
from usage.models import UsageEvent


class Stream:
    def __init__(self, body: bytes) -> None:
        self.body = body

    def read(self, size: int) -> bytes:
        return self.body[:size]


class BrokenStream:
    def read(self, size: int) -> bytes:
        raise UnreadablePostError("the sender is gone")


def parse(body: bytes) -> Any:
    return ExactJSONParser().parse(Stream(body))


def test_bodies_are_read_exactly() -> None:
    assert parse(b'{"a": 0.10, "b": 1180591620717411303424}') == {"a": Decimal("0.10"), "b": 2**70}
    assert str(parse(b"0.10")) == "0.10"
    assert parse('"\\ud83d\\ude00é"'.encode()) == "😀é"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"1e99999999999999999999",
        b"9" * 5_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ]
    + ['{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"), b'\xef\xbb\xbf{"a":1}', b'"\xff"', b'"\xed\xa0\x80"']
    + [b'"\\ud800"', b'{"\\udc00":1}', b'["\\ud800\\ud800"]', b'"\x00"', b"'a'", b"{}{}", b"[1,]"],
)
def test_a_body_that_is_no_json_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(ParseError, match="The body is not JSON: "):
        parse(body)


def test_a_body_has_its_limit_and_its_end() -> None:
    assert read_body(Stream(b"1234"), 4) == b"1234"
    with pytest.raises(TooLarge, match="A body of at most 4 bytes was expected"):
        read_body(Stream(b"12345"), 4)
    with pytest.raises(ParseError, match="The body ended before its time"):
        read_body(BrokenStream(), 4)


def test_answers_keep_every_digit() -> None:
    render = ExactJSONRenderer().render

    assert render({"a": Decimal("0.10"), "b": 2**70}) == b'{"a":0.10,"b":1180591620717411303424}'
    assert render(None) == b""


@pytest.mark.parametrize(
    ("exception", "code", "body"),
    [
        (
            ValidationError({"name": ["too long", "odd"], "non_field_errors": ["both"]}),
            400,
            {
                "detail": "name: too long; name: odd; both",
                "errors": [
                    {"field": "name", "message": "too long"},
                    {"field": "name", "message": "odd"},
                    {"field": "", "message": "both"},
                ],
            },
        ),
        (
            ValidationError({"customer_id": {0: ["blank"], 2: ["null"]}, "a": {"b": [{"c": ["x"]}]}}),  # type: ignore[dict-item]
            400,
            {
                "detail": "customer_id.0: blank; customer_id.2: null; a.b.c: x",
                "errors": [
                    {"field": "customer_id.0", "message": "blank"},
                    {"field": "customer_id.2", "message": "null"},
                    {"field": "a.b.c", "message": "x"},
                ],
            },
        ),
        (
            ModelValidationError({"slug": ["taken"]}),
            400,
            {"detail": "slug: taken", "errors": [{"field": "slug", "message": "taken"}]},
        ),
        (ModelValidationError("odd"), 400, {"detail": "odd", "errors": [{"field": "", "message": "odd"}]}),
        (NotFound("There is no such thing."), 404, {"detail": "There is no such thing."}),
    ],
)
def test_refusals_are_problem_details(exception: Exception, code: int, body: dict[str, Any]) -> None:
    answer = problem_details(exception, {})

    assert answer is not None
    title = {400: "Bad Request", 404: "Not Found"}[code]
    assert answer.data == {"type": "about:blank", "title": title, "status": code, **body}
    assert (answer.status_code, answer.content_type) == (code, "application/problem+json")


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_is_away_is_503_and_may_be_asked_again(error: type[Exception]) -> None:
    answer = problem_details(error("server closed the connection"), {})

    assert answer is not None
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.data == problem(503, "The database is unreachable; please try again.")
    assert "closed" not in str(answer.data)


def test_a_fault_of_ours_is_nobody_s_problem_details() -> None:
    assert problem_details(ZeroDivisionError(), {}) is None


def test_a_fault_is_answered_as_500_without_its_secrets(
    client: Client, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usage.views.definitions.UsageEventViewSet.list", lambda *_: int("secret"))
    client.raise_request_exception = False

    answer = client.get("/api/usage-events/", headers=headers)

    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json() == problem(500, "This is a fault of ours; it was logged.")


@pytest.mark.django_db
def test_an_address_that_leads_nowhere_is_problem_details(client: Client) -> None:
    for path in ("/api/nothing/", "/api/", "/usage/", "/usage/a/b", "/usage/a.b", "/usage/%00", "/api/metrics/a%20b/"):
        answer = client.get(path)

        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
        assert answer.json()["detail"].startswith("Nothing is at /")


def test_only_json_is_taken(client: Client, headers: dict[str, str]) -> None:
    for content_type in (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "a" * 5_000,
    ):
        answer = client.post("/api/usage-events/", b'{"name":"N"}', content_type=content_type, headers=headers)
        assert answer.status_code == 415, content_type
        assert answer["Content-Type"] == "application/problem+json"
    for content_type in (
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;;;",
        "application/json; charset=utf-16",
    ):
        answer = client.post("/api/usage-events/", b'{"name":"N"}', content_type=content_type, headers=headers)
        assert answer.status_code == 400, content_type


def test_json_is_answered_whatever_is_accepted(client: Client, headers: dict[str, str]) -> None:
    for accept in ("text/html", "*/*", "", "application/xml;q=1", ";;;", "é"):
        answer = client.get("/api/usage-events/", headers={**headers, "Accept": accept})
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


def test_a_body_over_the_limit_is_413(post: Post, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000

    answer = post("/api/usage-events/", {"name": "N" * 1_000})

    assert (answer.status_code, answer.json()["title"]) == (413, "Request Entity Too Large")
    assert not UsageEvent.objects.exists()


def test_a_field_that_is_not_known_or_read_only_is_refused(post: Post) -> None:
    body = {
        "name": "N",
        "slug": "s",
        "schema": {"type": "object"},
        "nmae": 1,
        "schema_version": 2,
        "é\0": 1,
    }

    answer = post("/api/usage-events/", body)

    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"field": "nmae", "message": "this field is not known"},
        {"field": "schema_version", "message": "this field is read-only"},
        {"field": "é\0", "message": "this field is not known"},
    ]
    assert not UsageEvent.objects.exists()


def test_a_body_that_is_no_object_is_refused(post: Post) -> None:
    for body in ("[]", "null", "1", '"x"', "true", "[{}]"):
        assert post("/api/usage-events/", body).status_code == 400, body


@pytest.fixture
def seven(organisation: Any) -> list[str]:
    for number in range(7):
        create_usage_event(organisation, name="N", slug=f"s{number}", schema={"type": "object"})
    return [f"s{number}" for number in reversed(range(7))]


def test_pages_follow_next_and_previous(client: Client, headers: dict[str, str], seven: list[str]) -> None:
    pages, url = [], "/api/usage-events/?page_size=3"
    while url:
        answer = client.get(url, headers=headers).json()
        assert list(answer) == ["next", "previous", "results"]
        pages.append([item["slug"] for item in answer["results"]])
        previous, url = answer["previous"], answer["next"]

    assert pages == [seven[:3], seven[3:6], seven[6:]]
    back = client.get(previous, headers=headers).json()
    assert [item["slug"] for item in back["results"]] == seven[3:6]


def test_what_is_created_while_reading_moves_no_page(
    client: Client, headers: dict[str, str], seven: list[str], organisation: Any
) -> None:
    first = client.get("/api/usage-events/?page_size=4", headers=headers).json()
    create_usage_event(organisation, name="N", slug="later", schema={"type": "object"})

    second = client.get(first["next"], headers=headers).json()

    assert [item["slug"] for item in second["results"]] == seven[4:]
    assert second["next"] is None


def test_an_odd_page_size_is_the_default(client: Client, headers: dict[str, str], seven: list[str]) -> None:
    for page_size, count in {
        "1": 1,
        "500": 7,
        "501": 7,
        "0": 7,
        "-1": 7,
        "x": 7,
        "9" * 5_000: 7,
        "": 7,
        "%00": 7,
    }.items():
        answer = client.get(f"/api/usage-events/?page_size={page_size}", headers=headers)

        assert len(answer.json()["results"]) == count, page_size


POSITIONS = [
    "p=abc",
    "p=%00",
    "p=",
    "p=1.5",
    "p=-1",
    "p=NaN",
    "p=" + "9" * 20,
    "p=1&o=x",
    "r=x&p=1",
    "p=1&o=-1",
    "p=1%0A",
    "p=%D9%A3",
]


def encoded(position: str) -> str:
    return base64.b64encode(position.encode()).decode()


def test_a_cursor_that_no_answer_held_is_404(client: Client, headers: dict[str, str], seven: list[str]) -> None:
    for cursor in ["x", "é", *map(encoded, POSITIONS)]:
        answer = client.get("/api/usage-events/", {"cursor": cursor}, headers=headers)

        assert (answer.status_code, answer.json().get("detail")) == (404, "Invalid cursor"), cursor


def test_any_other_cursor_is_a_page(client: Client, headers: dict[str, str], seven: list[str]) -> None:
    for position in ("p=1&o=99999999999", "p=9223372036854775807", "p=9999999999999999999", "o=5", "p=1&r=1", ""):
        answer = client.get("/api/usage-events/", {"cursor": encoded(position)}, headers=headers)

        assert answer.status_code == 200, position
