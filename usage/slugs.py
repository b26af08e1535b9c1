"""Addresses from names: the same rule as static/tallybook/derive.js, which applies it while the name is typed."""

import re
import unicodedata

MAX_SLUG = 100


def slug_of(name: str) -> str:
    """Return the slug that a name suggests: ASCII letters and digits, the rest underscores; "" if nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:MAX_SLUG].strip("_")
