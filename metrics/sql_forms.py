"""The SQL builder: a metric that is one SELECT over the organisation's tables."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from customers.admin_access import organisations_of
from customers.models import Organisation
from metrics.definition_forms import DefinitionForm, sentence
from metrics.models import SqlWindow
from metrics.sql_text import CheckedSql, SqlError, check_sql
from usage.tables import tables_of

MAX_SQL = 20_000
PLACEHOLDERS = [
    ("{{start_date}}", "when the window begins; in it"),
    ("{{end_date}}", "when the window ends; not in it"),
    ("{{customer.external_id}}", "run for each customer alone"),
]

Tables = list[tuple[str, list[tuple[str, str]]]]


class SqlForm(DefinitionForm):
    """A metric in SQL. `mistake_line` and `mistake_column` say where the text cannot be used, from 1."""

    formula = ("sql", "sql_window")

    organisation = forms.ModelChoiceField(
        queryset=Organisation.objects.none(), empty_label=None, widget=UnfoldAdminSelectWidget({"data-tb-owner": ""})
    )
    sql = forms.CharField(
        label="SQL",
        max_length=MAX_SQL,
        strip=False,
        widget=UnfoldAdminTextareaWidget(
            {
                "rows": 14,
                "spellcheck": "false",
                "autocomplete": "off",
                "wrap": "off",
                "data-tb-sql": "",
                "class": "tb-code",
            }
        ),
        help_text='One <code class="tb-inline">SELECT</code> of <code class="tb-inline">customer_id</code> and '
        '<code class="tb-inline">quantity</code>; up to five further columns are dimensions.',
    )
    sql_window = forms.ChoiceField(
        label="Calculated for",
        choices=SqlWindow.choices,
        initial=SqlWindow.DAY,
        widget=UnfoldAdminSelectWidget,
        help_text="Each calendar window is calculated by itself; a longer period is the sum of its windows.",
    )

    checked: CheckedSql | None = None
    mistake_line: int | None = None
    mistake_column: int | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        organisation_field = self.fields["organisation"]
        assert isinstance(organisation_field, forms.ModelChoiceField)
        own = organisations_of(self.user)
        if self.instance.pk:
            own = own.filter(pk=self.instance.organisation_id)
        organisation_field.queryset = own
        self.organisations = list(own)
        if len(self.organisations) == 1:
            del self.fields["organisation"]

    def initial_values(self) -> dict[str, Any]:
        metric = self.instance
        return {**super().initial_values(), "sql": metric.sql, "sql_window": metric.sql_window or SqlWindow.DAY}

    def owner(self) -> Organisation:
        chosen: Organisation = self.cleaned_data.get("organisation") or self.organisations[0]
        return chosen

    def clean_formula(self) -> None:
        if "sql" not in self.cleaned_data or "organisation" in self.errors or not self.organisations:
            return
        tables = {table: [name for name, _ in columns] for table, columns in tables_of(self.owner())}
        try:
            self.checked = check_sql(self.cleaned_data["sql"], tables)
        except SqlError as error:
            self.point_at(error)

    def dimensions(self) -> tuple[str, ...]:
        return self.checked.dimensions if self.checked else ()

    def refuse(self, refusal: forms.ValidationError) -> None:
        """What the database makes of the text has its place too."""
        if isinstance(refusal.__cause__, SqlError):
            self.point_at(refusal.__cause__)
        else:
            super().refuse(refusal)

    def point_at(self, error: SqlError) -> None:
        """Show a mistake at its line and column."""
        self.mistake_line, self.mistake_column = error.line, error.column
        self.add_error("sql", sentence(str(error)))

    def tables(self) -> dict[str, Tables]:
        """Return the tables and columns of each organisation that may be chosen, by its id."""
        return {str(organisation.pk): tables_of(organisation) for organisation in self.organisations}
