"""`hivemesh-worker check`: prints numbered findings; any error fails."""

import argparse
import sys

import msgspec

from hivemesh_sdk.cli.findings import Finding, Level, check
from hivemesh_sdk.failures import FAILURE, OK
from hivemesh_sdk.lifecycle.location import locate

_SIGNS = {Level.OK: "✓", Level.WARNING: "!", Level.ERROR: "✗"}


def run(options: argparse.Namespace) -> int:
    """Check a worker and say what was found."""
    findings = check(locate(options.worker))
    if options.output == "json":
        sys.stdout.write(msgspec.json.encode([_document(one) for one in findings]).decode() + "\n")
    else:
        for number, finding in enumerate(findings, 1):
            sys.stdout.write(_text(number, finding))
    return FAILURE if any(one.level is Level.ERROR for one in findings) else OK


def _text(number: int, finding: Finding) -> str:
    fix = f"\n      fix: {finding.fix}" if finding.fix else ""
    return f"{number:3} {_SIGNS[finding.level]} {finding.what}{fix}\n"


def _document(finding: Finding) -> dict[str, str]:
    return {"level": finding.level.value, "what": finding.what, "fix": finding.fix}
