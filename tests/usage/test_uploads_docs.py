"""The examples of docs/uploads.md give the answers that it prints: run as printed, with bash and curl."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from django.core.management import call_command
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from tests.test_readme import EXAMPLE, matches
from usage.models import Upload
from usage.tasks import check_staged_upload, ingest_staged_upload

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "uploads.md"


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="curl or bash is not installed")
def test_every_curl_of_the_page_answers_as_printed(live_server: LiveServer, settings: Settings, tmp_path: Path) -> None:
    settings.SITE_URL = live_server.url
    settings.UPLOAD_DIR = tmp_path / "uploads"
    access = tmp_path / "demo.env"
    call_command("create_demo", env_file=access)
    examples = EXAMPLE.findall(PAGE.read_text())
    assert len(examples) == 4

    for command, printed in examples:
        known = Upload.objects.last()
        given = f". {access}\nUPLOAD={known.pk if known else ''}\n"
        run = subprocess.run(["bash", "-c", given + command], capture_output=True, text=True, check=True, timeout=30)
        assert matches(json.loads(printed), json.loads(run.stdout)), f"{command}\nanswered: {run.stdout}"
        for upload in Upload.objects.under_way():  # the worker's part
            check_staged_upload(upload.pk)
            ingest_staged_upload(upload.pk)
