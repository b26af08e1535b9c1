"""Admin pages whose forms call an act: the form checks and acts, the page shows, and refusals appear at the fields."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from unfold.widgets import UnfoldAdminSelectWidget

from customers.admin_access import OwnOrganisationAdmin, organisations_of, person
from customers.models import Organisation


class ActForm(forms.Form):
    """A form of plain fields whose `act` does the deed; what the act refuses becomes errors of the fields."""

    error_css_class = "tb-invalid"

    def __init__(self, *args: Any, user: User, **options: Any) -> None:
        options.setdefault("label_suffix", "")
        super().__init__(*args, **options)
        self.user = user

    def act(self) -> Any:
        """Do the deed with cleaned_data and return what it was done to; may raise ValidationError by field."""
        raise NotImplementedError

    def perform(self) -> Any:
        """Return what the act returns, or None with the errors in place."""
        if not self.is_valid():
            return None
        try:
            return self.act()
        except ValidationError as refusal:
            self.refuse(refusal)
            return None

    def refuse(self, refusal: ValidationError) -> None:
        """Put an act's refusal at the fields it names, as far as the form has them."""
        by_field = refusal.message_dict if hasattr(refusal, "error_dict") else {"": refusal.messages}
        for field, texts in by_field.items():
            self.add_error(field if field in self.fields else None, texts)


class OrganisationForm(ActForm):
    """Something that is added to an organisation: a choice for who works for several, preset for the others."""

    organisation = forms.ModelChoiceField(
        queryset=Organisation.objects.none(), empty_label=None, widget=UnfoldAdminSelectWidget
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["organisation"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = organisations_of(self.user)
        self.only = list(field.queryset[:2])
        if len(self.only) == 1:
            del self.fields["organisation"]

    @property
    def own_organisation(self) -> Organisation:
        """The one that was chosen, or the only one; after is_valid()."""
        chosen: Organisation = self.cleaned_data["organisation"] if "organisation" in self.fields else self.only[0]
        return chosen


class ActAdmin(OwnOrganisationAdmin):
    """Adds and changes through `add_act_form` and `change_act_form` on pages of our own."""

    add_act_form: type[ActForm]
    change_act_form: type[ActForm]
    act_template = "admin/act_form.html"
    change_list_template = "admin/tb_change_list.html"
    add_title = ""
    empty_icon = "inbox"
    empty_text = ""
    show_add_link = False
    save_label = "Save"

    def make_form(self, request: HttpRequest, obj: Any, data: Any = None) -> ActForm:
        """Return the form for a new object (None) or for this one."""
        if obj is None:
            return self.add_act_form(data, user=person(request), initial=request.GET.dict() if data is None else None)
        return self.change_act_form(data, user=person(request), instance=obj)

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        """Return what the page shows beside the form."""
        return {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the form, or act and go on. Not in a transaction: the acts bring their own."""
        obj = None
        if object_id is None:
            if not self.has_add_permission(request):
                raise PermissionDenied
        else:
            obj = self.get_object(request, unquote(object_id))
            if obj is None:
                return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if request.method != "POST":
            return self.render_form(request, obj, self.make_form(request, obj))
        if obj is not None and not self.has_change_permission(request, obj):
            raise PermissionDenied
        form = self.make_form(request, obj, request.POST)
        done = form.perform()
        if done is None:
            return self.render_form(request, obj, form)
        return self.done(request, form, done, added=obj is None)

    def done(self, request: HttpRequest, form: ActForm, obj: Any, *, added: bool) -> HttpResponse:
        """Log the act and go on to the object's page."""
        if added:
            self.log_addition(request, obj, [{"added": {}}])
        else:
            self.log_change(request, obj, [{"changed": {"fields": form.changed_data}}])
        messages.success(request, self.done_message(obj, added=added))
        return self.redirect_to(obj)

    def done_message(self, obj: Any, *, added: bool) -> str:
        return format_html("{} “{}” was {}.", capfirst(str(self.opts.verbose_name)), obj, "added" if added else "saved")

    def redirect_to(self, obj: Any) -> HttpResponse:
        return HttpResponseRedirect(
            reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[obj.pk])
        )

    def render_form(self, request: HttpRequest, obj: Any, form: ActForm) -> HttpResponse:
        title = str(obj) if obj is not None else self.add_title or f"Add {self.opts.verbose_name}"
        return self.render_page(
            request,
            self.act_template,
            {
                "title": title,
                "original": obj,
                "form": form,
                "save_label": self.save_label,
                **self.page_context(request, obj, form),
            },
        )

    def render_page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
        """Return a page of this model's within the admin's frame."""
        request.current_app = self.admin_site.name
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "model_admin": self}
        crumbs = self.crumbs(context.get("original"), str(context["title"]))
        return TemplateResponse(request, template, {**frame, "crumbs": crumbs, **context})

    def crumbs(self, obj: Any, title: str) -> list[tuple[str, str]]:
        """Return the way back from a page: the list, and the object unless it is the page itself."""
        pages = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        way = [(capfirst(str(self.opts.verbose_name_plural)), reverse(f"{pages}_changelist"))]
        if obj is not None and str(obj) != title:
            way.append((str(obj), reverse(f"{pages}_change", args=[obj.pk])))
        return way

    def own_or_404(self, request: HttpRequest, object_id: str) -> Model | None:
        """Return the object of that id, if it is there and belongs to the person's organisations."""
        return self.get_object(request, unquote(object_id))
