"""`hivemesh demo` says what it lacks before it stores anything."""

from types import SimpleNamespace

import pytest
from hivemesh_platform.cli.demo import check_known
from hivemesh_sdk.errors import NotFoundError


def knowing(*names):
    return SimpleNamespace(pipelines=lambda: [SimpleNamespace(name=name) for name in names])


def test_a_platform_without_the_pipeline_is_told_where_to_start_it():
    with pytest.raises(NotFoundError, match="no pipeline 'email-insights'") as caught:
        check_known(knowing("another"))
    assert "hivemesh.yaml" in (caught.value.problem().remedy or "")


def test_a_platform_with_the_pipeline_is_taken():
    check_known(knowing("another", "email-insights"))
