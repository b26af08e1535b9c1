"""Lists of tables that grow without end: counted up to a bound, and never further."""

from typing import Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

COUNTED = 5_000


class BoundedPaginator(Paginator):
    """Pages through the first few thousand rows; `more` tells that there are more, without counting them."""

    template_name = "admin/bounded_pagination.html"

    @cached_property
    def found(self) -> int:
        """How many rows there are, at most one more than the bound."""
        rows: Any = self.object_list
        return int(rows.order_by()[: COUNTED + 1].count())

    @cached_property
    def count(self) -> int:
        return min(self.found, COUNTED)

    @property
    def more(self) -> bool:
        return self.found > COUNTED
