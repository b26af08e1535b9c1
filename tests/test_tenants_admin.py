"""Nothing of one organisation is seen, chosen or touched by the staff of another: every page, choice and action."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from customers.keys import issue_api_key
from customers.models import ApiKey, Customer, Membership, Organisation
from metrics.models import Metric
from tests.conftest import active_metric, record, take_in
from tests.people import signed_in, staff_of, superuser
from usage.definitions import create_usage_event
from usage.models import IngestBatch, RecordRevision, RejectedRecord, Upload, UsageEvent, UsageRecord
from usage.references import batch_reference

SECRET_WORD = "zanzibar"
MODELS = [
    Organisation,
    Membership,
    ApiKey,
    Customer,
    UsageEvent,
    UsageRecord,
    IngestBatch,
    RejectedRecord,
    Upload,
    Metric,
]
OF_USAGE_EVENTS = (UsageRecord, IngestBatch, RejectedRecord, Upload)


@dataclass
class Foreign:
    """An organisation with one of everything; each name holds the word that nobody else may read."""

    organisation: Organisation
    usage_event: UsageEvent
    metric: Metric
    objects: dict[type[Model], int]


@pytest.fixture
def foreign(transactional_db: None) -> Foreign:
    organisation = Organisation.objects.create(name=f"{SECRET_WORD} inc", timezone="UTC")
    schema = {"type": "object", "properties": {f"{SECRET_WORD}_hours": {"type": "number"}}}
    usage_event = create_usage_event(organisation, name=f"{SECRET_WORD} hours", slug=SECRET_WORD, schema=schema)
    metric = active_metric(usage_event, name=f"{SECRET_WORD} sum", code=SECRET_WORD, aggregation="count")
    issue_api_key(organisation, f"{SECRET_WORD} key", ["ingest"])
    usage = {
        "customer_id": SECRET_WORD,
        "timestamp": "2025-06-17T00:00:00Z",
        "data": {SECRET_WORD: 1},
        "id": SECRET_WORD,
    }
    take_in(usage_event, usage, {**usage, "data": {f"{SECRET_WORD}_hours": SECRET_WORD}, "id": f"{SECRET_WORD}-bad"})
    file = {"stored_name": SECRET_WORD, "sha256": "0" * 64, "size": 1, "format": "csv"}
    Upload.objects.create(usage_event=usage_event, file_name=f"{SECRET_WORD}.csv", **file)
    member = User.objects.create_user(SECRET_WORD, is_staff=True)
    Membership.objects.create(organisation=organisation, user=member)
    objects = {model: model._default_manager.get(**_only(model, organisation)).pk for model in MODELS}
    return Foreign(organisation, usage_event, metric, objects)


def _only(model: type[Model], organisation: Organisation) -> dict[str, Any]:
    if model is Organisation:
        return {"pk": organisation.pk}
    return {"usage_event__organisation" if model in OF_USAGE_EVENTS else "organisation": organisation}


@pytest.fixture
def stranger(organisation: Organisation, compute: UsageEvent) -> Client:
    """Staff of another organisation, which has a usage event, a customer and a record of its own."""
    take_in(compute, record())
    return staff_of(organisation, name="stranger")


def admin_pages(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Yield the route of every page of the admin."""
    for pattern in patterns if patterns is not None else admin.site.get_urls():
        if isinstance(pattern, URLResolver):
            yield from admin_pages(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield prefix + str(pattern.pattern)


def test_no_page_of_the_admin_shows_a_word_of_another_organisation(stranger: Client, foreign: Foreign) -> None:
    routes = [route for route in admin_pages() if not route.startswith(("(?P", "^"))]
    assert len(routes) > 50
    posted = {"reason": "x", "archived": "yes", "deed": "discard"}
    for route in routes:
        for identity in foreign.objects.values():
            path = "/admin/" + _filled(route, identity)
            for response in (stranger.get(path), stranger.post(path, {**posted, "chosen": identity})):
                assert response.status_code in (200, 302, 403, 404, 405), path
                assert SECRET_WORD not in response.content.decode(), path
            if "<" not in route:
                break
    stranger_left_no_trace(foreign)


def _filled(route: str, identity: int) -> str:
    for part in ("<path:object_id>", "<int:object_id>", "<id>", "<path:content_type_id>"):
        route = route.replace(part, str(identity))
    return route


def stranger_left_no_trace(foreign: Foreign) -> None:
    foreign.usage_event.refresh_from_db()
    stored = UsageRecord.objects.get(pk=foreign.objects[UsageRecord])
    key = ApiKey.objects.get(pk=foreign.objects[ApiKey])
    assert (foreign.usage_event.archived_at, foreign.usage_event.schema_version) == (None, 1)
    assert (stored.voided_at, stored.revision, key.revoked_at) == (None, 1, None)
    entry = RejectedRecord.objects.get(pk=foreign.objects[RejectedRecord])
    customer = Customer.objects.get(pk=foreign.objects[Customer])
    assert (entry.status, entry.times) == ("open", 1)
    assert (customer.archived_at, customer.confirmed, customer.aliases.count()) == (None, False, 0)
    assert not RecordRevision.objects.filter(usage_event=foreign.usage_event).exists()


def test_no_action_touches_what_belongs_to_another_organisation(stranger: Client, foreign: Foreign) -> None:
    for path, model, actions in (
        ("usage/usagerecord", UsageRecord, ["void", "restore", "delete_selected"]),
        ("usage/usageevent", UsageEvent, ["archive", "unarchive", "delete_selected"]),
        ("usage/rejectedrecord", RejectedRecord, ["choose", "delete_selected"]),
        ("usage/ingestbatch", IngestBatch, ["delete_selected"]),
        ("customers/customer", Customer, ["confirm", "archive", "unarchive", "delete_selected"]),
        ("customers/apikey", ApiKey, ["revoke", "delete_selected"]),
        ("metrics/metric", Metric, ["activate", "delete_selected"]),
        ("customers/membership", Membership, ["delete_selected"]),
    ):
        for action in actions:
            for more in ({}, {"select_across": "1"}):
                chosen = {"action": action, "_selected_action": [foreign.objects[model]], "reason": "x", "post": "yes"}
                response = stranger.post(f"/admin/{path}/", {**chosen, **more}, follow=True)
                assert response.status_code in (200, 403)
                assert SECRET_WORD not in response.content.decode()
    stranger_left_no_trace(foreign)
    assert Membership.objects.filter(organisation=foreign.organisation).count() == 1


def test_no_filter_reaches_over(stranger: Client, foreign: Foreign) -> None:
    record_list = "/admin/usage/usagerecord/"
    stored = UsageRecord.objects.get(pk=foreign.objects[UsageRecord])
    queries: list[Any] = [
        {"usage_event": foreign.usage_event.pk},
        {"customer_id": SECRET_WORD},
        {"record_id": SECRET_WORD},
        {"record_id": stored.pk},
        {"batch": stored.batch_id},
    ]
    for query in queries:
        response = stranger.get(record_list, query)
        assert response.status_code == 200
        assert list(response.context["cl"].result_list) == [], query
    entries = "/admin/usage/rejectedrecord/"
    batches = "/admin/usage/ingestbatch/"
    batch = IngestBatch.objects.get(pk=foreign.objects[IngestBatch])
    asked: list[tuple[str, dict[str, Any]]] = [
        (entries, {"usage_event": foreign.usage_event.pk}),
        (entries, {"record_id": f"{SECRET_WORD}-bad", "status": "all"}),
        (entries, {"batch": batch.pk, "status": "all"}),
        (batches, {"usage_event": foreign.usage_event.pk}),
        (batches, {"batch": batch_reference(batch.pk, batch.received_at)}),
    ]
    for page, query in asked:
        assert not any(
            row.usage_event == foreign.usage_event for row in stranger.get(page, query).context["cl"].result_list
        )
    assert stranger.get(f"{entries}bulk/?usage_event={foreign.usage_event.pk}&code=schema").status_code == 404
    for path in ("usage/usageevent", "customers/customer", "customers/apikey", "metrics/metric"):
        assert not stranger.get(f"/admin/{path}/", {"q": SECRET_WORD}).context["cl"].result_count


def test_no_form_takes_what_belongs_to_another_organisation(stranger: Client, foreign: Foreign) -> None:
    organisation = foreign.organisation.pk
    schema = '{"type": "object"}'
    stranger.post("/admin/usage/usageevent/add/", {"organisation": organisation, "name": "x", "schema": schema})
    assert foreign.organisation.usage_events.count() == 1
    stranger.post("/admin/customers/customer/add/", {"organisation": organisation, "external_id": "x"})
    assert foreign.organisation.customers.count() == 1
    stranger.post("/admin/customers/apikey/add/", {"organisation": organisation, "name": "x", "scopes": ["ingest"]})
    assert foreign.organisation.api_keys.count() == 1
    chosen = {"usage_event": foreign.usage_event.pk, "name": "x", "code": "x", "aggregation": "count"}
    refused = stranger.post("/admin/metrics/metric/add/", chosen)
    assert list(refused.context["form"].errors) == ["usage_event"]
    assert foreign.organisation.metrics.count() == 1


def test_a_record_is_not_moved_to_another_organisations_customer(stranger: Client, foreign: Foreign) -> None:
    own = UsageRecord.objects.get(usage_event__slug="compute_hours")
    values = {"customer_id": SECRET_WORD, "timestamp": "2025-06-17T14:03:12Z", "property_0": "1", "reason": "x"}
    refused = stranger.post(f"/admin/usage/usagerecord/{own.pk}/change/", {**values, "revision": 1})
    assert list(refused.context["form"].errors) == ["customer_id"]


def test_quantities_of_another_organisation_cannot_be_asked_for(stranger: Client, foreign: Foreign) -> None:
    period: dict[str, Any] = {"start": "2025-06-01", "end": "2025-07-01", "window": "total", "timezone": "UTC"}
    page = "/admin/metrics/metric/quantities/"
    response = stranger.get(page, {"metric": foreign.metric.pk, **period})
    assert response.status_code == 200
    assert response.context["answer"] is None
    assert SECRET_WORD not in response.content.decode()


def test_autocompletes_offer_nothing_of_another_organisation(stranger: Client, foreign: Foreign) -> None:
    for app, model, field in (
        ("usage", "usagerecord", "customer"),
        ("usage", "usagerecord", "usage_event"),
        ("metrics", "metric", "usage_event"),
        ("customers", "customer", "organisation"),
        ("customers", "membership", "user"),
    ):
        for term in ("", SECRET_WORD, "\0"):
            asked = {"app_label": app, "model_name": model, "field_name": field, "term": term}
            response = stranger.get("/admin/autocomplete/", asked)
            assert response.status_code in (200, 403, 404), asked
            assert SECRET_WORD not in response.content.decode(), asked


def test_staff_without_an_organisation_sees_nothing(foreign: Foreign) -> None:
    nobody = staff_of(name="nobody")
    home = nobody.get("/admin/").content.decode()
    assert "You do not work for any organisation yet" in home
    for model in MODELS:
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        assert nobody.get(path).status_code == 403
        assert nobody.get(f"{path}{foreign.objects[model]}/change/").status_code in (302, 403)
    assert nobody.get("/admin/metrics/metric/quantities/").status_code == 403


def test_no_address_of_the_admin_is_a_fault(stranger: Client) -> None:
    content_types = ContentType.objects.values_list("pk", flat=True)
    paths = [
        "search/?s=usage&page=abc",
        "search/?s=%00",
        "r/abc/def/",
        "r/99999999999999999999/1/",
        *(f"r/{content_type}/{identity}/" for content_type in content_types for identity in ("a%00b", "9" * 30, "1")),
        "autocomplete/",
        "autocomplete/?app_label=usage&model_name=usagerecord&field_name=customer&term=a&page=abc",
        "autocomplete/?app_label=%00&model_name=usagerecord&field_name=customer",
        "autocomplete/?app_label=usage&model_name=usagerecord&field_name=data",
        "usage/",
        "nowhere/",
        "usage/usageevent/1/change/?_changelist_filters=%00",
        "usage/usageevent/add/?name=%00&organisation=abc&schema=[",
        "metrics/metric/add/?usage_event=abc&property=x&aggregation=y",
        "customers/apikey/add/?scopes=x&expires_on=never",
        "login/?next=//example.com/%00",
    ]
    for path in paths:
        assert stranger.get(f"/admin/{path}").status_code in (200, 302, 403, 404), path


def test_who_is_not_staff_gets_no_page(foreign: Foreign) -> None:
    customer = signed_in(User.objects.create_user("visitor"))
    Membership.objects.create(organisation=foreign.organisation, user=User.objects.get(username="visitor"))
    for route in ("", "usage/usagerecord/", "metrics/metric/quantities/", "usage/usageevent/add/"):
        response = customer.get(f"/admin/{route}")
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")


def test_a_superuser_sees_every_organisation(foreign: Foreign, stranger: Client) -> None:
    root = superuser()
    for path in ("usage/usageevent", "customers/customer", "customers/organisation", "metrics/metric"):
        assert SECRET_WORD in root.get(f"/admin/{path}/").content.decode()
    assert SECRET_WORD in root.get(f"/admin/usage/usagerecord/{foreign.objects[UsageRecord]}/change/").content.decode()


def test_the_admin_has_no_other_models() -> None:
    get_resolver()
    assert {model.__name__ for model in admin.site._registry} == {model.__name__ for model in MODELS} | {"User"}
