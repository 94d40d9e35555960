"""Whoever follows the protocol's page is conforming, without a line of this SDK."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from hivemesh_sdk.cli import main
from hivemesh_sdk.safeio.documents import load_manifest

STRANGER = Path(__file__).parent / "stranger-worker"


def test_it_uses_nothing_of_ours():
    assert "import hivemesh" not in (STRANGER / "worker.py").read_text()
    assert "from hivemesh" not in (STRANGER / "worker.py").read_text()


def test_its_manifest_is_that_of_plugin_yaml():
    written = json.loads((STRANGER / "manifest.json").read_text())
    assert written == load_manifest(STRANGER / "plugin.yaml").document()


@pytest.mark.integration
def test_a_worker_written_from_the_protocols_page_is_conforming(capsys):
    command = shlex.join([sys.executable, str(STRANGER / "worker.py")])
    code = main(["conformance", str(STRANGER), "--start", command, "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    failed = [one for one in found["results"] if one["outcome"] == "failed"]
    assert (code, failed) == (0, [])
    assert found["passed"] > 40
