"""What a load balancer and a supervisor ask: is the process up, and can it serve?"""

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse


def healthz(request: HttpRequest) -> HttpResponse:
    """The process is up."""
    return JsonResponse({"status": "up"})


def readyz(request: HttpRequest) -> HttpResponse:
    """The database is reachable and every migration is applied; 503 with the reason if not."""
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return JsonResponse({"status": "unready", "reason": "the database is unreachable"}, status=503)
    if missing:
        return JsonResponse({"status": "unready", "reason": f"{len(missing)} migrations are not applied"}, status=503)
    return JsonResponse({"status": "ready"})
