"""API keys: issued with a secret that is shown once, found again by its hash."""

import hashlib
import secrets
from collections.abc import Iterable

from django.utils.timezone import now

from customers.models import ApiKey, Organisation

SECRET_MARK = "tb_"


def hash_secret(secret: str) -> bytes:
    """Return the SHA-256 of a secret, 32 bytes, as it is stored."""
    return hashlib.sha256(secret.encode()).digest()


def issue_api_key(organisation: Organisation, name: str, scopes: Iterable[str]) -> tuple[ApiKey, str]:
    """Store a new key and return it with its secret (32 random bytes, URL-safe), which nobody can show again."""
    secret = SECRET_MARK + secrets.token_urlsafe(32)
    key = ApiKey.objects.create(
        organisation=organisation,
        name=name,
        prefix=secret[: len(SECRET_MARK) + 6],
        secret_hash=hash_secret(secret),
        scopes=list(scopes),
    )
    return key, secret


def revoke_api_key(key: ApiKey) -> ApiKey:
    """End a key's life, at once and for every process; a revoked key stays revoked, and stays in the list."""
    if key.revoked_at is None:
        key.revoked_at = now()
        key.save(update_fields=["revoked_at"])
    return key
