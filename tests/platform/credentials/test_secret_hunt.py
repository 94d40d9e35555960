"""The hunt of the canary test finds what is there, wherever and however it lies."""

import base64
import os
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from urllib.parse import quote

import pytest
import zstandard
from secret_hunt import descendants, files, processes, where

VALUE = "cAnary/7+f3&Zq9=x"
FORMS = {
    "raw": VALUE.encode(),
    "url": b"https://host/?key=" + quote(VALUE, safe="").encode(),
    "hexadecimal": VALUE.encode().hex().encode(),
    "base64": base64.b64encode(VALUE.encode()),
    "basic": b"Basic " + base64.b64encode(b"ab:" + VALUE.encode() + b":more"),
    "basic, 1": base64.b64encode(b"abc:" + VALUE.encode()),
    "zstd": zstandard.ZstdCompressor().compress(b"a " + VALUE.encode()),
    "gzip": zlib.compress(b"a " + VALUE.encode(), wbits=31),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_found_in_a_file_and_in_a_row(tmp_path, form):
    assert where(VALUE, files(tmp_path)) == []
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(
        b"before " * ("zstd" not in form and form != "gzip") + FORMS[form]
    )
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("CREATE TABLE kept (data BLOB)")
        connection.execute("INSERT INTO kept VALUES (?)", (FORMS[form],))
        connection.commit()
    found = where(VALUE, files(tmp_path))
    assert any("deep/file" in one for one in found)
    assert any("some.db:kept" in one for one in found)


@pytest.mark.integration
def test_it_is_found_in_processes():
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    for arguments, environment in (([VALUE], {}), ([], {"KEY": VALUE})):
        with subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **environment},
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert child.pid in descendants(os.getpid())
            assert len(where(VALUE, processes(iter([child.pid])))) == 1
            child.communicate()
