"""`hivemesh policy`: what people see of tests, differences and explanations."""

import sys
from typing import Self

import pytest
from hivemesh_platform.cli import failures, policy
from hivemesh_platform.cli.main import build
from hivemesh_sdk.contracts.policy_api import (
    EdgeView,
    PolicyExplanation,
    PolicyReview,
    PolicyTestView,
    PolicyView,
)

DOCUMENT = """\
version: 1
rules:
  - {id: a, from: {worker: email-parser}, to: {worker: email-classifier}}
tests:
  - {caller: parser, callee: classifier, capability: email.classify@1, expect: allow, rule: a}
  - {caller: classifier, callee: parser, capability: email.parse@1, expect: deny}
"""


class Platform:
    """Stands for the client: remembers what it is told, answers what a test lays out."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.applied: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def review_policy(self, document: str, *, name: str) -> object:
        return self.answers["review"]

    def explain_policy(self, *_question: str, **_more: object) -> object:
        return self.answers["explanation"]

    def policy(self, version: int | None) -> object:
        return self.answers["view"]

    def apply_policy(self, document: str, *, expected: int, name: str, reason: str) -> object:
        self.applied.append((reason, expected))
        return view(expected + 1)


def view(version: int) -> PolicyView:
    return PolicyView(
        version=version,
        created_at="2026-01-02T03:04:05+00:00",
        author="anna",
        rules=1,
        denials=0,
        document=DOCUMENT,
        consented=[{"id": "manifest:a:b.c@1", "from": {"worker": "a"}}],
        current=True,
        in_force_at=2,
        asked_by=2,
    )


def review(**changes: object) -> PolicyReview:
    edge = EdgeView(
        caller="platform", callee="email-parser", capability="x.y@1", change="cut", live=True
    )
    known = {"based_on": 3, "diff": "-a\n+b", "edges": [edge], **changes}
    return PolicyReview.model_validate(known)


def failing() -> PolicyTestView:
    return PolicyTestView(
        caller="a",
        callee="b",
        capability="x.y@1",
        expected="allow",
        result="deny",
        rule="stop",
        passed=False,
    )


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(DOCUMENT)

    def run(platform, *words):
        monkeypatch.setattr(policy.session, "client", lambda _state: platform)
        words = ["policy", *(str(file) if word == "FILE" else word for word in words)]
        monkeypatch.setattr(sys, "argv", ["hivemesh", *words])
        code = failures.run_guarded(
            lambda: build(words)(words, prog_name="hivemesh", standalone_mode=False)
        )
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    run.file = file
    return run


def test_a_document_is_tested_without_a_platform(command):
    code, out, err = command(None, "test", "FILE", "--offline")
    assert code == 0
    assert "ok   parser -> classifier email.classify@1: allow by a" in out
    assert "2 passed, 0 failed" in err


def test_a_failing_test_is_the_exit_code(command):
    command.file.write_text(DOCUMENT.replace("expect: deny", "expect: allow"))
    code, out, _ = command(None, "test", "FILE", "--offline")
    assert code == 1
    assert "FAIL classifier -> parser email.parse@1: deny, expected allow" in out


def test_a_mistake_in_the_file_is_told_by_name_and_line(command):
    command.file.write_text("version: 1\nrulez: []\n")
    code, _, err = command(None, "test", "FILE", "--offline")
    assert code != 0
    assert "why: policy.yaml is not valid\n  at /rulez: unknown key 'rulez'" in err
    assert "(line 2)" in err


def test_a_file_that_is_no_text_is_refused(command):
    command.file.write_bytes(b"\xff\xfe")
    code, _, err = command(None, "test", "FILE", "--offline")
    assert code != 0
    assert "no UTF-8" in err


def test_apply_shows_what_is_cut_and_applies_what_it_showed(command):
    platform = Platform(review=review())
    code, out, err = command(platform, "apply", "FILE", "--yes", "--reason", "why")
    assert code == 0
    assert "cut: platform -> email-parser x.y@1" in out
    assert platform.applied == [("why", 3)]
    assert "version 4 is in force at 2 of 2 workers (undo:" in err


def test_apply_does_nothing_without_consent(command):
    platform = Platform(review=review())
    code, _, err = command(platform, "apply", "FILE")
    assert (code, platform.applied) == (2, [])
    assert "--yes" in err


def test_a_dry_run_applies_nothing_and_tells_of_failing_tests(command):
    platform = Platform(review=review())
    assert command(platform, "apply", "FILE", "--dry-run")[0] == 0
    platform.answers["review"] = review(tests=[failing()])
    code, out, _ = command(platform, "apply", "FILE", "--dry-run")
    assert (code, platform.applied) == (1, [])
    assert "FAIL a -> b x.y@1: deny by stop, expected allow" in out


def test_the_shown_policy_can_be_applied_again(command):
    _, out, _ = command(Platform(view=view(3)), "show")
    assert out.startswith("# policy version 3 of")
    assert '#  - {"id": "manifest:a:b.c@1"' in out
    command.file.write_text(out)
    assert command(None, "test", "FILE", "--offline")[0] == 0


def test_nothing_that_differs_is_said(command):
    same = review(diff="", edges=[])
    _, out, err = command(Platform(review=same), "diff", "FILE")
    assert (out, "nothing differs from version 3" in err) == ("", True)


@pytest.mark.parametrize(("decision", "code"), [("allow", 0), ("deny", 4)])
def test_explain_answers_by_its_exit_code(command, decision, code):
    explanation = PolicyExplanation(
        caller="a",
        callee="b",
        capability="x.y@1",
        decision=decision,
        reason="no-rule",
        why="no rule covers it",
        version=3,
        would_allow=["this", "that"] if decision == "deny" else [],
    )
    found, out, _ = command(Platform(explanation=explanation), "explain", "a", "b", "x.y@1")
    assert found == code
    assert f"{decision}: no rule covers it (policy version 3)" in out
    assert ("would allow it: this\n            or: that" in out) is (decision == "deny")
