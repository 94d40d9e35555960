"""What a vault answers is what who asked is told, also where its token was refused at first."""

import json

import pytest
from hivemesh_platform.credentials.errors import SecretDeniedError
from hivemesh_platform.credentials.vault_http import VaultClient
from hivemesh_platform.settings import SecretsSettings
from hivemesh_sdk.testing.clock import ManualClock

TOKEN = {"auth": {"client_token": "t", "lease_duration": 100, "renewable": True}}


class Scripted(VaultClient):
    """Speaks with a vault that answers a path with one status after the other."""

    def __init__(self, clock, **answers):
        settings = {"vault": {"address": "https://vault.test:8200", "role_id": "r"}}
        super().__init__(SecretsSettings.model_validate(settings).vault, clock)
        self.answers = {"login": [200] * 9, **answers}

    def _send(self, method, path, body, token):
        status = self.answers[path.rpartition("/")[2]].pop(0)
        return self._answer(status, json.dumps(TOKEN).encode(), path)


async def test_there_is_nothing_where_a_vault_says_so_after_it_refused_the_token():
    vault = Scripted(ManualClock(), secret=[403, 404])
    assert await vault.get("secret") is None


async def test_what_is_refused_with_a_new_token_is_denied():
    vault = Scripted(ManualClock(), secret=[403, 403])
    with pytest.raises(SecretDeniedError):
        await vault.get("secret")


async def test_a_vault_that_does_not_know_how_to_renew_gives_a_new_token():
    clock = ManualClock()
    vault = Scripted(clock, **{"secret": [404, 404], "renew-self": [404]})
    assert await vault.get("secret") is None
    clock.advance(60)
    assert await vault.get("secret") is None
    assert len(vault.answers["login"]) == 7
