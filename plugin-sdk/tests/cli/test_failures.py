"""Errors become words and a documented exit code."""

import json

import pytest
from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import (
    ConfigurationError,
    ConflictError,
    NotAuthorizedError,
    RetryableError,
)
from hivemesh_sdk.failures import guarded


def run(error: BaseException, *, as_json: bool = False) -> int:
    def command() -> int:
        raise error

    return guarded(command, as_json=as_json, trace=False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (NotAuthorizedError("x"), 4),
        (ConflictError("x"), 5),
        (RetryableError("x", slug="deadline-exceeded"), 6),
        (RetryableError("x", slug="draining"), 7),
        (RetryableError("x"), 1),
        (ZeroDivisionError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, capsys):
    assert run(error) == code


def test_an_error_says_what_why_where_and_what_to_do(capsys):
    problem = FieldProblem(pointer="/a", message="too long")
    run(ConfigurationError("an option is wrong", errors=[problem]))
    assert capsys.readouterr().err.splitlines() == [
        "error[HM-1218]: the capability is not configured correctly",
        "why: an option is wrong",
        "  at /a: too long",
        "fix: mend the option or setting that is named",
        "docs: docs/reference/errors.md#hm-1218",
    ]


def test_an_error_of_the_program_has_a_code_and_no_stack_trace(capsys):
    run(ZeroDivisionError("division by zero"))
    error = capsys.readouterr().err
    assert "error[HM-1900]" in error
    assert "ZeroDivisionError: division by zero" in error
    assert "Traceback" not in error


def test_as_json_the_problem_goes_to_standard_output(capsys):
    run(ConfigurationError("x"), as_json=True)
    assert json.loads(capsys.readouterr().out)["code"] == "HM-1218"


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    assert guarded((tmp_path / "absent").stat, as_json=False, trace=False) == 2
    assert str(tmp_path / "absent") in capsys.readouterr().err


def test_with_a_trace_the_error_is_raised():
    def command() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(command, as_json=False, trace=True)
