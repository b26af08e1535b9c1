"""The addresses of the baseline."""

from django.urls import path

from tests.benchmarks.baseline import views

urlpatterns = [path("bare", views.bare), path("per-call", views.per_call), path("cached", views.cached)]
