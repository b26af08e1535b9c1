"""What the OpenAPI document says of every operation: security, refusals, pages; and the descriptions of customers."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiViewExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view

from customers.api import PROBLEM_TYPE
from customers.serializers import CustomerChangeSerializer, CustomerQuerySerializer, CustomerSerializer

REFUSALS = {
    "400": "The request was not understood; `errors` names each field.",
    "401": "The headers `organisation` and `x-api-key` do not name an organisation and a live key of it.",
    "403": "The key lacks the scope.",
    "404": "There is no such thing in the organisation.",
    "405": "The address does not take this method.",
    "413": "The body is too large.",
    "415": "The content type is not understood.",
    "429": "The key's rate limit is used up; `Retry-After` tells for how long.",
    "503": "The database is away; please try again after `Retry-After`.",
}
PROBLEM = {
    "type": "object",
    "description": "A refusal (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "example": {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "revision: This field is required.",
        "errors": [{"field": "revision", "message": "This field is required."}],
    },
}
STANDARD = {"list": "List them", "retrieve": "Read one", "create": "Make one", "partial_update": "Change one"}
METHODS = ("get", "post", "patch")
PROBLEM_REFERENCE = "#/components/schemas/Problem"


class Description(AutoSchema):
    """Describes an operation; tags by the resource, the first sentence of the docstring as summary."""

    def get_tags(self) -> list[str]:
        parts = self.path.strip("/").split("/")
        return [parts[1] if parts[0] == "api" else "usage"]

    def _is_list_view(self, serializer: Any = None) -> bool:
        # A list whose answer is written out, links and all, is described as it stands.
        return not getattr(self.view, "written_out", False) and bool(super()._is_list_view(serializer))

    def get_summary(self) -> str | None:
        action = getattr(self.view, getattr(self.view, "action", "") or "", None)
        text = (getattr(action, "__doc__", None) or "").strip().partition("\n")[0]
        return text.rstrip(".") or STANDARD.get(getattr(self.view, "action", ""))


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """Two headers that go together."""

    target_class = "customers.authentication.ApiKeyAuthentication"
    match_subclasses = True
    name = ["organisation", "apiKey"]

    def get_security_definition(self, auto_schema: Any) -> Any:
        return [
            {"type": "apiKey", "in": "header", "name": name, "description": description}
            for name, description in (
                ("organisation", "The organisation's key, a UUID."),
                ("x-api-key", "The secret of one of its keys."),
            )
        ]


def plain_paths(endpoints: Any) -> Any:
    """Write the optional slash at the end of an address as the slash that it has in every link."""
    return [(path.replace("/?", "/"), regex, method, callback) for path, regex, method, callback in endpoints]


def postprocess(result: Any, generator: Any, request: Any, public: Any) -> Any:
    """Add the refusals that every operation may answer, as problem details."""
    result["components"].setdefault("schemas", {})["Problem"] = PROBLEM
    for operations in result["paths"].values():
        for method in METHODS:
            if method in operations:
                responses = operations[method]["responses"]
                for status, response in responses.items():
                    if status >= "400" and PROBLEM_REFERENCE in str(response):
                        responses[status] = refusal(response["description"])
                for status, description in REFUSALS.items():
                    responses.setdefault(status, refusal(description))
                operations[method]["responses"] = dict(sorted(responses.items()))
    return result


def refusal(description: str) -> dict[str, Any]:
    """Return a response of problem details."""
    return {
        "description": description,
        "content": {PROBLEM_TYPE: {"schema": {"$ref": PROBLEM_REFERENCE}}},
    }


def problem_response(description: str) -> OpenApiResponse:
    """Return a documented refusal beside those that every operation has."""
    return OpenApiResponse({"$ref": PROBLEM_REFERENCE}, description)


CUSTOMER = {
    "external_id": "cus_123",
    "name": "Acme Ltd",
    "email": "billing@acme.example",
    "timezone": "Europe/Berlin",
    "aliases": ["acme-old"],
    "custom_data": {"contract": "C-17"},
}
WHOLE_CUSTOMER = {**CUSTOMER, "confirmed": True, "archived": False, "created_at": "2025-06-17T14:03:12Z"}


class CustomerDescription(OpenApiViewExtension):
    target_class = "customers.views.CustomerViewSet"

    def view_replacement(self) -> Any:
        example = OpenApiExample("a customer", CUSTOMER, request_only=True)
        answer = OpenApiExample("a customer", WHOLE_CUSTOMER, response_only=True)
        changes = [OpenApiExample("new aliases", {"aliases": ["acme-2"]}, request_only=True), answer]

        @extend_schema_view(
            list=extend_schema(parameters=[CustomerQuerySerializer], examples=[answer]),
            retrieve=extend_schema(examples=[answer]),
            create=extend_schema(
                responses={
                    201: CustomerSerializer,
                    200: OpenApiResponse(CustomerSerializer, "Usage had named it already; it is completed."),
                },
                examples=[example, answer],
            ),
            partial_update=extend_schema(
                request=CustomerChangeSerializer, responses=CustomerChangeSerializer, examples=changes
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described
