"""`context.http`: what the manifest declares, and what the policy opens at the moment."""

import pytest
from hivemesh_sdk import Context, Worker
from hivemesh_sdk.safeio.egress import EgressDeniedError
from hivemesh_sdk.worker.http import Http
from hivemesh_sdk.worker.local import run_local

worker = Worker()


@worker.call("page.fetch@1")
def fetch(url: str, context: Context) -> int:
    return context.http.request("GET", url).status


def test_capability_reaches_only_what_its_manifest_declares():
    answers = run_local(
        worker,
        "page.fetch@1",
        {},
        [b'"https://other.example.org/"'],
        http=Http(["api.example.org"]),
    )
    with pytest.raises(EgressDeniedError, match=r"permissions\.egress"):
        list(answers)


def test_capability_without_declared_destinations_reaches_nothing():
    with pytest.raises(EgressDeniedError):
        list(run_local(worker, "page.fetch@1", {}, [b'"https://example.org/"']))


def test_rule_that_the_policy_takes_back_counts_at_the_next_request():
    opened = ["127.0.0.1:1"]
    http = Http(["127.0.0.1:1"], lambda: opened)
    with pytest.raises(Exception, match="cannot be reached"):
        http.request("GET", "https://127.0.0.1:1/")
    opened.clear()
    with pytest.raises(EgressDeniedError, match="loopback"):
        http.request("GET", "https://127.0.0.1:1/")
