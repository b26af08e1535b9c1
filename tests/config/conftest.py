"""Folders and environments in which the servers can be started as if nothing ran yet."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, open to pass through as the servers' account must; pytest's own are neither."""
    path = Path(tempfile.mkdtemp(prefix="tallybook-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def bare_environment(folder: Path) -> dict[str, str]:
    """The environment of a machine where no server is known, its temporary files in `folder`."""
    known = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "VAR_DIR")
    return {name: value for name, value in os.environ.items() if name not in known} | {"TMPDIR": str(folder)}
