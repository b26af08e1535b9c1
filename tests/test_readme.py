"""The examples of the documentation give the answers that it prints: run as printed, with bash and curl."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from metrics.materialization import build
from metrics.models import Metric

ROOT = Path(__file__).resolve().parent.parent
# In this order: the later pages go on with what the earlier ones have stored.
PAGES = ("README.md", "docs/ingestion.md", "docs/api.md", "docs/metrics.md")
# An answer is JSON or, after `curl -i`, a whole HTTP message: the status, headers that must be there, and the JSON.
EXAMPLE = re.compile(r"^```sh\n(curl .*?)^```\n+^```(?:json|http)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ANYTHING = "…"


def matches(expected: Any, answer: Any) -> bool:
    """Compare JSON values; the string … in the README stands for any string."""
    if expected == ANYTHING:
        return isinstance(answer, str)
    if isinstance(expected, dict) and isinstance(answer, dict):
        return expected.keys() == answer.keys() and all(matches(expected[key], answer[key]) for key in expected)
    if isinstance(expected, list) and isinstance(answer, list):
        return len(expected) == len(answer) and all(map(matches, expected, answer))
    return bool(expected == answer)


def check(command: str, printed: str, shown: str) -> None:
    if printed.startswith("HTTP/1.1 "):
        head, _, printed = printed.partition("\n\n")
        shown_head, _, shown = shown.replace("\r\n", "\n").partition("\n\n")
        status, *fields = head.splitlines()
        assert shown_head.startswith(status), f"{command}\nprinted: {status}\nanswered: {shown_head}"
        assert {field.lower() for field in fields} <= {field.lower() for field in shown_head.splitlines()}, command
    assert matches(json.loads(printed), json.loads(shown)), f"{command}\nprinted: {printed}\nanswered: {shown}"


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="curl or bash is not installed")
def test_every_curl_of_the_documentation_answers_as_printed(
    live_server: LiveServer, settings: Settings, tmp_path: Path
) -> None:
    settings.SITE_URL = live_server.url
    access = tmp_path / "demo.env"
    call_command("create_demo", env_file=access)
    examples = [example for page in PAGES for example in EXAMPLE.findall((ROOT / page).read_text())]
    assert len(examples) >= 16

    for command, printed in examples:
        shown = subprocess.run(
            ["bash", "-c", f". {access}\n{command}"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        check(command, printed, shown)
        for metric in Metric.objects.filter(status=Metric.Status.BUILDING):
            build(metric.pk)  # the worker's part
