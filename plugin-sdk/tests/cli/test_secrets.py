"""Secrets at the desk: `check` asks for their declaration, `call` takes their values from a file."""

import json
import sys

import pytest
from hivemesh_sdk.cli import main
from hivemesh_sdk.redaction import REDACTOR

VALUE = "correct-horse-battery"
MANIFEST = """
apiVersion: hivemesh/v1
kind: Worker
metadata: {name: keyed, version: 1.0.0}
runtime: {entrypoint: "worker_keyed_sample.main:worker"}
capabilities:
  - {id: keyed.use@1, kind: call}
"""
CODE = """
from hivemesh_sdk import FatalError, Record, Secret, Worker

worker = Worker()


class Options(Record):
    key: Secret
    fail: bool = False


@worker.call("keyed.use@1")
def use(options: Options) -> dict[str, object]:
    if options.fail:
        raise FatalError("login with " + options.key.reveal())
    return {"length": len(options.key.reveal()), "shown": str(options.key)}
"""


@pytest.fixture
def worker(tmp_path):
    package = tmp_path / "src" / "worker_keyed_sample"
    package.mkdir(parents=True)
    (tmp_path / "plugin.yaml").write_text(MANIFEST)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(CODE)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in [name for name in sys.modules if name.startswith("worker_keyed_sample")]:
        del sys.modules[name]
    REDACTOR.clear()


def call(worker, *words):
    file = worker / "values.yaml"
    file.write_text(f"mail.password: {VALUE}\n")
    reference = "key={{ vault.mail.password }}"
    options = ["--worker", str(worker), "--with", reference, "--secrets", str(file)]
    return main(["call", "keyed.use@1", *options, *words])


def test_a_capability_is_tried_with_values_of_a_file(worker, capsys):
    assert call(worker) == 0
    assert json.loads(capsys.readouterr().out) == {"length": len(VALUE), "shown": "***"}


def test_not_even_an_error_prints_them(worker, capsys):
    assert call(worker, "--with", "fail=true") == 2
    said = capsys.readouterr()
    assert "login with ***" in said.err
    assert VALUE not in said.out + said.err


def test_a_secret_without_a_value_is_named(worker, capsys):
    options = ["--worker", str(worker), "--with", "key={{ vault.mail.other }}"]
    assert main(["call", "keyed.use@1", *options]) == 3
    assert "mail.other" in capsys.readouterr().err


def test_check_wants_secret_options_in_the_manifest(worker, capsys):
    assert main(["check", str(worker)]) != 0
    said = capsys.readouterr().out
    assert "take a secret and plugin.yaml does not say so" in said
    assert "hivemesh-worker schema keyed.use@1" in said
