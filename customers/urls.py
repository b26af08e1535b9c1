"""The API of customers."""

from rest_framework.routers import SimpleRouter

from customers.views import CustomerViewSet

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("api/customers", CustomerViewSet, basename="customer")

urlpatterns = router.urls
