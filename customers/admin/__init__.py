"""The admin pages of customers: organisations and their keys, customers, and the people who work with them."""

from customers.admin.customers import CustomerAdmin
from customers.admin.organisations import ApiKeyAdmin, OrganisationAdmin
from customers.admin.people import MembershipAdmin, UserAdmin

__all__ = ["ApiKeyAdmin", "CustomerAdmin", "MembershipAdmin", "OrganisationAdmin", "UserAdmin"]
