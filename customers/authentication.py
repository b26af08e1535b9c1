"""Who calls the API: two headers, an organisation's key and a secret, and the scopes that go with them."""

import hashlib
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.timezone import now
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from customers.models import ApiKey, Scope

WORDING = "The headers `organisation` and `x-api-key` must name an organisation and a live key of it."
REMEMBERED = 10_000
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as it was when this process read it; the database has the last word."""

    api_key_id: int
    organisation_id: int
    organisation_name: str
    scopes: frozenset[str]
    expires_at: datetime | None

    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= now()


_known: dict[tuple[str, bytes], Credential] = {}
_use_noted: dict[int, float] = {}


class ApiKeyAuthentication(BaseAuthentication):
    """Looks the key up for every request. Missing, unknown, revoked, expired, mismatched: one wording."""

    def authenticate(self, request: Request) -> tuple[Credential, Credential]:
        """Return the credential as user and as auth; raises AuthenticationFailed."""
        organisation = request.META.get("HTTP_ORGANISATION", "")
        secret_hash = hashlib.sha256(request.META.get("HTTP_X_API_KEY", "").encode("utf-8", "replace")).digest()
        credential = self.find(organisation, secret_hash)
        if credential is None or credential.expired():
            raise AuthenticationFailed(WORDING)
        _note_use(credential.api_key_id)
        return credential, credential

    def authenticate_header(self, request: Request) -> str:
        return "ApiKey"

    def find(self, organisation: str, secret_hash: bytes) -> Credential | None:
        return _load(organisation, secret_hash)


class RememberedApiKeyAuthentication(ApiKeyAuthentication):
    """Takes the key from memory. For ingestion only, whose transaction asks the database whether the key is live."""

    def find(self, organisation: str, secret_hash: bytes) -> Credential | None:
        credential = _known.get((organisation, secret_hash))
        if credential is None or credential.expired() or Scope.INGEST not in credential.scopes:
            # A memory that refuses is asked about as well: the key may have been given more since.
            credential = _load(organisation, secret_hash)
            if credential is not None:
                if len(_known) >= REMEMBERED:
                    _known.clear()
                _known[organisation, secret_hash] = credential
        return credential


class HasScope(BasePermission):
    """The view's `scope`; where it names none, `read` for reading and `manage` for everything else."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the key has the scope; raises PermissionDenied, naming it, if not."""
        scope = getattr(view, "scope", None) or (Scope.READ if request.method in SAFE_METHODS else Scope.MANAGE)
        if scope not in caller(request).scopes:
            raise PermissionDenied(f"This needs a key with the scope '{scope}'.")
        return True


def caller(request: Request) -> Credential:
    """Return the credential that the request was authenticated with."""
    credential = request.auth
    assert isinstance(credential, Credential)
    return credential


def confirm(credential: Credential, scope: str) -> None:
    """Ask the database whether a remembered key still holds; raises AuthenticationFailed or PermissionDenied.

    Forgets it if not.
    """
    key = ApiKey.objects.live().filter(pk=credential.api_key_id).first()
    if key is not None and scope in key.scopes:
        return
    for address, known in list(_known.items()):
        if known.api_key_id == credential.api_key_id:
            _known.pop(address, None)
    if key is None:
        raise AuthenticationFailed(WORDING)
    raise PermissionDenied(f"This needs a key with the scope '{scope}'.")


def _load(organisation: str, secret_hash: bytes) -> Credential | None:
    try:
        organisation_key = uuid.UUID(organisation)
    except ValueError:
        return None
    key = (
        ApiKey.objects.live()
        .select_related("organisation")
        .filter(secret_hash=secret_hash, organisation__key=organisation_key)
        .first()
    )
    if key is None:
        return None
    return Credential(key.pk, key.organisation_id, key.organisation.name, frozenset(key.scopes), key.expires_at)


def _note_use(api_key_id: int) -> None:
    """Once a minute a process is enough, and never inside a transaction that others could wait for."""
    if time.monotonic() - _use_noted.get(api_key_id, float("-inf")) < USE_NOTED_EVERY.total_seconds():
        return
    _use_noted[api_key_id] = time.monotonic()
    ApiKey.objects.filter(pk=api_key_id).update(last_used_at=now())
