import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hivemesh_platform.listeners import PortTakenError, Sockets
from hivemesh_platform.settings import ApiSettings
from hivemesh_sdk.errors import ConfigurationError

ANY = ApiSettings(port=0, enrolment_port=0)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_told_with_its_setting(tmp_path: Path, taken: int) -> None:
    with pytest.raises(PortTakenError, match=r"api\.port") as refused:
        Sockets.open(ApiSettings(port=taken, enrolment_port=0), tmp_path / "ports")
    assert refused.value.problem().code == "HM-1604"


def test_a_taken_enrolment_port_frees_the_other(tmp_path: Path, taken: int) -> None:
    with pytest.raises(PortTakenError, match=r"api\.enrolment_port"):
        Sockets.open(ApiSettings(port=0, enrolment_port=taken), tmp_path / "ports")


def test_a_free_port_is_kept_for_later_starts(tmp_path: Path) -> None:
    first = Sockets.open(ANY, tmp_path / "ports")
    ports = (first.mesh.getsockname(), first.enrolment.getsockname())
    first.close()
    again = Sockets.open(ANY, tmp_path / "ports")
    assert (again.mesh.getsockname(), again.enrolment.getsockname()) == ports
    again.close()


def test_a_kept_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path, taken: int) -> None:
    (tmp_path / "ports").write_text(json.dumps({"mesh": taken, "enrolment": taken}))
    found = Sockets.open(ANY, tmp_path / "ports")
    assert found.mesh.getsockname()[1] != taken
    found.close()


def test_a_memory_that_is_damaged_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "ports").write_text("{")
    Sockets.open(ANY, tmp_path / "ports").close()


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        Sockets.open(ApiSettings(host="192.0.2.1", port=0), tmp_path / "ports")
