"""The direction of imports: customers <- usage <- metrics, edges at the outside, nothing hidden in functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APPS = ["customers", "usage", "metrics"]
# What the outside touches; acts, models and pure modules must not know of it.
EDGES = {"views", "serializers", "openapi", "admin", "forms", "tasks", "management", "urls"}


def sources(app: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / app).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_edge(path: Path) -> bool:
    names = [part.removesuffix(".py") for part in path.parts[1:]]
    return any(name in EDGES or name.startswith("openapi_") for name in names)


def test_an_app_imports_only_what_lies_below_it_and_never_config() -> None:
    offenders = []
    for level, app in enumerate(APPS):
        forbidden = {"config", *APPS[level + 1 :]}
        for path, tree in sources(app):
            offenders += [f"{path}: {name}" for name in imported(tree) if name.split(".")[0] in forbidden]
    assert offenders == []


def test_acts_models_and_pure_modules_do_not_import_edges() -> None:
    offenders = []
    for app in APPS:
        for path, tree in sources(app):
            if is_edge(path) or "migrations" in path.parts:
                continue
            offenders += [
                f"{path}: {name}"
                for name in imported(tree)
                if name.split(".")[0] in APPS and name.split(".")[1] in EDGES
            ]
    assert offenders == []


def test_no_import_hides_in_a_function() -> None:
    offenders = [
        f"{path}:{inner.lineno}"
        for app in [*APPS, "config"]
        for path, tree in sources(app)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert offenders == []


def test_raw_sql_has_its_address() -> None:
    addresses = {
        "metrics/reading.py",
        "metrics/snapshots.py",
    }  # and every module named for it: sql.py, record_sql.py, …
    offenders = [
        f"{path}:{node.lineno}"
        for app in APPS
        for path, tree in sources(app)
        if str(path) not in addresses and path.stem.split("_")[-1] != "sql" and "migrations" not in path.parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"execute", "executemany", "copy", "raw", "extra"}
        and not (node.func.attr == "copy" and not node.args)
    ]
    assert offenders == []


def test_every_module_says_what_room_it_is() -> None:
    silent = [
        str(path)
        for app in [*APPS, "config"]
        for path, tree in sources(app)
        if path.stat().st_size and not ast.get_docstring(tree) and "migrations" not in path.parts
    ]
    assert silent == []
