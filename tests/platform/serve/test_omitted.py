"""The platform's process starts without what it never uses, and the rest still finds it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

PREAMBLE = "import sys; from hivemesh_platform.omitted import omit_unused, without_postgres\n"


def say(program):
    """What a fresh Python prints: in this one the libraries are loaded."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + program], check=True, capture_output=True, text=True
    ).stdout.split()


def test_the_engine_loads_no_driver_of_postgresql():
    program = (
        "with without_postgres():\n    import dbos\n"
        "print([name for name in sys.modules if name.startswith('psycopg')])"
    )
    assert say(program) == ["[]"]


def test_afterwards_an_import_finds_the_driver_itself():
    assert say(
        "with without_postgres(): pass\nimport psycopg; print(psycopg.connect.__name__)"
    ) == ["connect"]


def test_a_driver_that_is_loaded_stays():
    program = "import psycopg\nwith without_postgres(): print(sys.modules['psycopg'] is psycopg)"
    assert say(program) == ["True"]


def test_the_application_and_its_migrations_load_without_the_unused():
    program = (
        "omit_unused(); from hivemesh_platform import app, server; import alembic.command, dbos\n"
        "unused = ('rich', 'pygments', 'pydantic.v1', 'uvicorn.supervisors')\n"
        "print(*[name for name in unused if sys.modules.get(name)])"
    )
    assert say(program) == []
