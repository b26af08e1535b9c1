"""API keys: the secret is shown once, only its hash is kept."""

import hashlib
import re

import pytest

from customers.keys import hash_secret, issue_api_key
from customers.models import ApiKey, Organisation, Scope


@pytest.mark.django_db
def test_only_the_hash_of_a_secret_is_stored() -> None:
    organisation = Organisation.objects.create(name="Acme")

    key, secret = issue_api_key(organisation, "billing job", [Scope.INGEST, Scope.READ])

    assert re.fullmatch(r"tb_[A-Za-z0-9_-]{43}", secret)
    stored = ApiKey.objects.get()
    assert bytes(stored.secret_hash) == hashlib.sha256(secret.encode()).digest() == hash_secret(secret)
    assert (stored.pk, stored.organisation, stored.name) == (key.pk, organisation, "billing job")
    assert stored.scopes == ["ingest", "read"]
    assert stored.prefix == secret[:9]
    assert (stored.revoked_at, stored.expires_at, stored.last_used_at) == (None, None, None)
    texts = [str(value) for row in ApiKey.objects.values_list() for value in row]
    assert not any(secret in text for text in texts)


@pytest.mark.django_db
def test_no_two_secrets_are_equal() -> None:
    organisation = Organisation.objects.create(name="Acme")

    secrets = {issue_api_key(organisation, "k", [])[1] for _ in range(20)}

    assert len(secrets) == 20
