"""What pages have and the API has not: sessions and people."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

seen: list[HttpRequest] = []


def look(request: HttpRequest) -> HttpResponse:
    seen.append(request)
    return HttpResponse("looked")


urlpatterns = [path(place, look) for place in ("api/look", "usage/look", "look")]


@pytest.fixture
def look_at(client: Client, db: None) -> Callable[[str], HttpRequest]:
    client.force_login(User.objects.create_user("ada"))

    def looked(address: str) -> Any:
        with override_settings(ROOT_URLCONF=__name__):
            assert client.get(address).status_code == 200
        return seen[-1]

    return looked


@pytest.mark.parametrize("address", ["/api/look", "/usage/look"])
def test_a_request_of_the_api_has_no_session_and_nobody_signed_in(look_at: Any, address: str) -> None:
    request = look_at(address)

    assert not {"session", "user", "_messages"} & set(vars(request))


def test_a_page_has(look_at: Any) -> None:
    request = look_at("/look")

    assert request.user.get_username() == "ada"
    assert {"session", "_messages"} <= set(vars(request))
