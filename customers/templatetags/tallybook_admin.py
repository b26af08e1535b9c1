"""What the admin's templates need: exact JSON, exact decimals, instants in UTC, a button that copies."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.utils.html import format_html

from customers.exactjson import dumps

register = template.Library()


@register.filter
def exact_json(value: Any) -> str:
    """Return indented JSON with every digit."""
    return dumps(value, indent=2)


@register.filter
def exact_line(value: Any) -> str:
    """Return JSON in one line with every digit."""
    return dumps(value)


@register.filter
def exact_decimal(value: Decimal | None) -> str:
    """Return a decimal with every digit, and a dash for none."""
    return "-" if value is None else format(value, "f")


@register.filter
def grouped(value: Decimal | None) -> str:
    """Return an exact decimal with thin spaces between thousands, for reading."""
    return "-" if value is None else format(value, ",f").replace(",", "\N{NARROW NO-BREAK SPACE}")


@register.filter
def utc(moment: datetime) -> str:
    """Return an instant in UTC, to the second unless it has a fraction."""
    return moment.astimezone(ZoneInfo("UTC")).isoformat(sep=" ").removesuffix("+00:00")


@register.filter
def iso_utc(moment: datetime) -> str:
    """Return an instant as the address bar carries it."""
    return moment.astimezone(ZoneInfo("UTC")).replace(tzinfo=None).isoformat()


@register.filter
def in_zone(moment: datetime, zone: ZoneInfo) -> str:
    """Return an instant as the clocks of a zone show it; midnight as the bare date."""
    local = moment.astimezone(zone)
    return local.strftime("%Y-%m-%d" if not (local.hour or local.minute or local.second) else "%Y-%m-%d %H:%M")


@register.simple_tag
def copy_button(target: str, label: str) -> str:
    """Return a button that copies the text of the element with that id; static/tallybook/forms.js listens to it."""
    return format_html(
        '<button type="button" class="tb-copy" data-tb-copy="{}" title="{}" aria-label="{}">'
        '<span class="material-symbols-outlined">content_copy</span></button>',
        target,
        label,
        label,
    )
