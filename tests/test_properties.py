"""No body whatever gives a 500, and every record that was sent is counted once in the answer."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from customers.exactjson import dumps
from usage.models import IngestBatch, UsageEvent, UsageRecord

URL = "/usage/compute_hours"
STATUSES = {200, 201, 207, 409, 422}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "cpu_usage_hours", ""]), inner),
    max_leaves=5,
)
hours = st.builds(lambda number: {"cpu_usage_hours": number}, st.integers(0, 3))
records = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from(["c", "d", "", 5]) | json_values,
        "timestamp": st.sampled_from(["2025-06-17T14:03:12Z", "2025-06-17 14:03:12", "now"]),
        "data": hours | json_values,
    },
    optional={"id": st.sampled_from(["i", "j", "k", None, ""]), "other": json_values},
)
batches = st.lists(st.one_of(records, records, json_values), min_size=1, max_size=6)

tried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def send(client: Client, compute: UsageEvent, headers: dict[str, str]) -> Callable[..., Any]:
    def posted(body: bytes, media_type: str, **more: str) -> Any:
        extra: Any = {"CONTENT_TYPE": media_type}
        return client.generic("POST", URL, body, media_type, headers={**headers, **more}, **extra)

    return posted


def counted(answer: Any) -> int:
    told = answer.json()
    return int(told["accepted"] + told["duplicates"] + told["conflicts"] + told["rejected"])


@tried
@given(
    batch=batches,
    shape=st.sampled_from(["array", "records", "lines"]),
    packed=st.booleans(),
    key=st.sampled_from([{}, {"Idempotency-Key": "k"}]),
)
def test_every_record_sent_is_counted_once(
    send: Callable[..., Any], batch: list[Any], shape: str, packed: bool, key: dict[str, str]
) -> None:
    texts = [dumps(item) for item in batch]
    body = {
        "array": f"[{','.join(texts)}]",
        "records": f'{{"records":[{",".join(texts)}]}}',
        "lines": "\r\n".join(texts),
    }
    content = body[shape].encode()
    before = UsageRecord.objects.count()

    answer = send(
        gzip.compress(content) if packed else content,
        "application/x-ndjson" if shape == "lines" else "application/json",
        **({"Content-Encoding": "gzip"} if packed else {}),
        **key,
    )

    assert answer.status_code in STATUSES
    assert counted(answer) == len(batch)
    told = answer.json()
    assert len(told["errors"]) == told["conflicts"] + told["rejected"]
    assert UsageRecord.objects.count() == before + told["accepted"]
    receipt = IngestBatch.objects.latest("id")
    assert (receipt.accepted, receipt.duplicates, receipt.conflicts, receipt.rejected) == tuple(
        told[name] for name in ("accepted", "duplicates", "conflicts", "rejected")
    )


@tried
@given(batch=batches)
def test_a_strict_request_is_stored_whole_or_not_at_all(send: Callable[..., Any], batch: list[Any]) -> None:
    before = UsageRecord.objects.count(), IngestBatch.objects.count()

    answer = send(dumps(batch).encode(), "application/json", Prefer="handling=strict")

    told = answer.json()
    if answer.status_code == 422:
        assert (told["accepted"], told["batch"]) == (0, None)
        assert (UsageRecord.objects.count(), IngestBatch.objects.count()) == before
    else:
        assert answer.status_code in (200, 201)
        assert counted(answer) == len(batch) == told["accepted"] + told["duplicates"]


texts = st.lists(
    st.sampled_from(
        ["[", "]", "{", "}", ",", ":", '"', "\\", "\n", "\\u0000", "\\ud800", "1e9", "-", "null", '"data"', '"records"']
    )
    | st.text(max_size=3)
).map("".join)


@tried
@given(
    body=st.binary(max_size=80) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    media_type=st.sampled_from(["application/json", "application/x-ndjson", "text/csv"]),
    encoding=st.sampled_from(["", "gzip", "identity", "br"]),
    pack=st.booleans(),
)
def test_no_bytes_whatever_give_a_500(
    send: Callable[..., Any], body: bytes, media_type: str, encoding: str, pack: bool
) -> None:
    answer = send(gzip.compress(body) if pack else body, media_type, **{"Content-Encoding": encoding})

    assert answer.status_code in STATUSES | {400, 413, 415}
    if answer.status_code in STATUSES:
        assert counted(answer) >= 1
    else:
        assert answer["Content-Type"] == "application/problem+json"
