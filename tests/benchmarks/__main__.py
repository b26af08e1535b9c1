"""`make bench`: every bar as a ratio within this run, printed as a table and written to var/bench.json."""

import gc
import os
import sys
import time
from pathlib import Path

import django


def main() -> int:
    """Measure; 1 if a bar failed."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # what is ingested in this process costs what it costs in the web process
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.baseline.settings"
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from tests.benchmarks import folding, growth, ingestion, live_worker, memory, pages, reading
    from tests.benchmarks.baseline.models import BareRow, PlainRecord
    from tests.benchmarks.measuring import Report, machine, told
    from tests.benchmarks.scene import Scene

    quick = os.environ.get("QUICK", "") not in ("", "0")
    only = set(filter(None, os.environ.get("ONLY", "").split(",")))
    started = time.monotonic()
    with told("migrations"):
        call_command("migrate", verbosity=0)
        with connection.schema_editor() as editor:
            editor.create_model(BareRow)
            editor.create_model(PlainRecord)
    scene, report = Scene.set(), Report(quick)
    facts = machine()
    print("      " + ", ".join(f"{name}: {value}" for name, value in facts.items()), flush=True)

    def wanted(part: str) -> bool:
        return not only or part in only

    if wanted("ingestion"):
        ingestion.measure(report, scene)
    if not only or only & {"folding", "reading", "pages"}:
        large, small = (
            scene.history("large", 300_000 if quick else 5_000_000),
            scene.history("small", 100_000 if quick else 1_000_000),
        )
        for part, measure in (
            ("folding", lambda: folding.measure(report, scene, large, small)),
            ("folding", lambda: live_worker.measure(report, scene)),
            ("reading", lambda: reading.measure(report, scene, large)),
            ("pages", lambda: pages.measure(report, scene, small)),
        ):
            if wanted(part):
                measure()
    if wanted("memory"):
        memory.measure(report, scene)
    if "growth" in only:
        growth.measure(report, scene)

    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE source NOT IN ('default', 'client', 'session')")
        settings = dict(cursor.fetchall())
        cursor.execute("SELECT version()")
        (version,) = cursor.fetchone()
    facts |= {"postgresql": version, "settings": settings, "quick": quick}
    path = Path(os.environ.get("BENCH_JSON", "var/bench.json"))
    report.write(path, facts)
    print(f"{time.monotonic() - started:.0f} s; written to {path}")
    return 1 if report.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
