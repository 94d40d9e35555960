"""What people see of secrets and send to store one."""

from typing import Annotated

from pydantic import Field, SecretStr

from hivemesh_sdk.contracts.api import Body, View


class SecretView(View):
    """A secret without its value."""

    path: str
    version: int
    versions: int
    created_at: str
    deleted: bool


class SecretInput(Body):
    """A value to store; never part of an address or a log."""

    value: Annotated[SecretStr, Field(min_length=1, max_length=65_536)]


class SecretValueView(View):
    """The answer to `reveal`."""

    path: str
    version: int
    value: str = Field(repr=False)
