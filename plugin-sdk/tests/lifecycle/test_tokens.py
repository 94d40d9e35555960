"""Tokens come over an inherited descriptor or from a private file, never otherwise."""

import asyncio
import os
import socket

import pytest
from hivemesh_sdk.errors import ConfigurationError
from hivemesh_sdk.lifecycle.tokens import FileCredential, NoTokenError, SupervisorTokens


def token(number: int, kind: str = "jt1") -> str:
    return f"{kind}.{number:016x}.{'s' * 43}.{'a' * 64}"


async def test_a_pipe_yields_one_token_per_line_and_then_none():
    reader, writer = os.pipe()
    tokens = SupervisorTokens(reader)
    os.write(writer, f"{token(1)}\n{token(2)}\n".encode())
    assert [(await tokens.next()).id, (await tokens.next()).id] == ["0" * 15 + "1", "0" * 15 + "2"]
    os.close(writer)
    with pytest.raises(NoTokenError):
        await tokens.next()
    tokens.close()


async def test_over_a_socket_another_token_is_asked_for():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - takes no keywords
    tokens = SupervisorTokens(theirs.detach())
    ours.send(f"{token(1)}\n".encode())
    assert (await tokens.next()).id.endswith("1")
    second = asyncio.ensure_future(tokens.next())
    asked = await asyncio.get_running_loop().sock_recv(ours, 100)
    ours.send(f"{token(2)}\n".encode())
    assert (asked, (await second).id[-1]) == (b"token\n", "2")
    tokens.close()
    ours.close()


async def test_what_is_no_token_is_refused_without_being_shown():
    reader, writer = os.pipe()
    tokens = SupervisorTokens(reader)
    os.write(writer, b"secret-words\n")
    with pytest.raises(ConfigurationError) as caught:
        await tokens.next()
    assert "secret-words" not in str(caught.value)
    tokens.close()
    os.close(writer)


def test_a_descriptor_that_is_not_open_is_named():
    with pytest.raises(ConfigurationError, match="987654"):
        SupervisorTokens(987654)


def test_a_regular_file_is_no_way_of_tokens(tmp_path):
    with (tmp_path / "token").open("w+") as file, pytest.raises(ConfigurationError, match="a pipe"):
        SupervisorTokens(file.fileno())


async def test_a_credential_file_is_read_each_time(tmp_path):
    path = tmp_path / "credential"
    path.write_text(token(7, "dc1") + "\n")
    path.chmod(0o400)
    credential = FileCredential(path)
    assert (await credential.next()).id == (await credential.next()).id


async def test_a_credential_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "credential"
    path.write_text(token(7, "dc1"))
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        await FileCredential(path).next()
