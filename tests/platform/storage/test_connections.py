"""A connection to the database server that cannot be used is closed, not left to the collector."""

import psycopg
import pytest
from hivemesh_platform.storage import server as servers


class Broken:
    """A connection whose server goes away after the handshake."""

    def __init__(self):
        self.closed = False

    def execute(self, _sql):
        message = "server closed the connection unexpectedly"
        raise psycopg.OperationalError(message)

    def close(self):
        self.closed = True


def test_a_connection_whose_first_statement_fails_is_closed(monkeypatch):
    broken = Broken()
    monkeypatch.setattr(psycopg, "connect", lambda **_parameters: broken)
    with pytest.raises(psycopg.OperationalError):
        servers.Server(parameters={}).connect()
    assert broken.closed
