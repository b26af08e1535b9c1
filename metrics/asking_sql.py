"""The two look-ups before every quantity, which the ORM would take longer to write than the database to answer."""

from collections.abc import Sequence

from django.db import connection

from metrics.models import Metric


def metric_in_force(organisation_id: int, code: str) -> Metric | None:
    """Return the active version of a metric, if there is one. Unique index (organisation, code) of active versions."""
    active = Metric.objects.raw(
        "SELECT * FROM metrics_metric WHERE organisation_id = %s AND code = %s AND status = %s",
        [organisation_id, code, Metric.Status.ACTIVE],
    )
    return next(iter(active), None)


def customers_of_their_own_id(organisation_id: int, external_ids: Sequence[str]) -> dict[str, int]:
    """Return the customers of that external id, by it. Unique index (organisation, external_id)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT external_id, id FROM customers_customer WHERE organisation_id = %s AND external_id = ANY (%s)",
            [organisation_id, list(external_ids)],
        )
        return dict(cursor.fetchall())
