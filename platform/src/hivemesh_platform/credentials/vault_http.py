"""Speaks with OpenBao or Vault: TLS with verification, AppRole login, renewal, one retry.

The standard library's HTTP client in a thread: there are a few small requests a minute.
"""

import asyncio
import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.errors import ConfigurationError
from pydantic import JsonValue

from hivemesh_platform.credentials.errors import SecretDeniedError, SecretsSealedError
from hivemesh_platform.settings import VaultSettings

MAX_ANSWER_BYTES = 1024 * 1024
TOKEN_HEADER = "X-Vault-Token"  # noqa: S105 - the name of a header
_ABSENT = frozenset({404})

Answer = Mapping[str, JsonValue]


class VaultClient:
    """One vault, by the platform's own role."""

    def __init__(self, settings: VaultSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._address = _address(settings.address)
        self._context: ssl.SSLContext | None = None
        self._login_lock = threading.Lock()
        self._token = ""
        self._token_s = 0.0  # how long it lives
        self._renew_at = 0.0  # monotonic
        self._renewable = False

    async def sealed(self) -> str:
        """Why the vault answers nothing at the moment; "" where it does."""
        try:
            answer = await asyncio.to_thread(self._send, "GET", "sys/seal-status", None, "")
        except SecretsSealedError as error:
            return error.detail
        return f"the vault at {self._settings.address} is sealed" if answer.get("sealed") else ""

    async def get(self, path: str) -> Answer | None:
        """Read; None where there is nothing."""
        return await self._ask("GET", path, None)

    async def names(self, path: str) -> list[str]:
        """Names below a path; those that end in `/` have more below them."""
        answer = await self._ask("GET", f"{path}?list=true", None)
        data = {} if answer is None else answer.get("data")
        keys = data.get("keys") if isinstance(data, dict) else None
        return [str(key) for key in keys] if isinstance(keys, list) else []

    async def post(self, path: str, body: Answer) -> Answer | None:
        """Write."""
        return await self._ask("POST", path, body)

    async def delete(self, path: str) -> Answer | None:
        """Delete."""
        return await self._ask("DELETE", path, None)

    async def _ask(self, method: str, path: str, body: Answer | None) -> Answer | None:
        return await asyncio.to_thread(self._authorised, method, path, body)

    def _authorised(self, method: str, path: str, body: Answer | None) -> Answer | None:
        """Ask with a token; one that was revoked meanwhile is replaced once."""
        token = self._fresh_token()
        try:
            try:
                return self._send(method, path, body, token)
            except SecretDeniedError:
                return self._send(method, path, body, self._fresh_token(other_than=token))
        except _AbsentError:
            return None

    def _fresh_token(self, *, other_than: str = "") -> str:
        with self._login_lock:
            now = self._clock.monotonic()
            if not self._token or self._token == other_than:
                self._login(now)
            elif now >= self._renew_at:
                self._renew(now)
            return self._token

    def _login(self, now: float) -> None:
        settings = self._settings
        body: Answer = {
            "role_id": settings.role_id,
            "secret_id": settings.secret_id.get_secret_value(),
        }
        try:
            answer = self._send("POST", f"auth/{settings.auth_mount}/login", body, "")
        except (SecretDeniedError, _AbsentError, _RefusedError) as error:
            self._token = ""
            message = f"{settings.address} refuses the AppRole login of the platform"
            raise SecretsSealedError(message) from error
        self._take(answer, now)

    def _renew(self, now: float) -> None:
        if self._renewable:
            try:
                self._take(self._send("POST", "auth/token/renew-self", {}, self._token), now)
            except (SecretDeniedError, _AbsentError, _RefusedError):
                pass
            else:
                if self._token_s >= 1:
                    return
        self._login(now)

    def _take(self, answer: Answer, now: float) -> None:
        auth = answer.get("auth")
        token = auth.get("client_token") if isinstance(auth, dict) else None
        if not isinstance(auth, dict) or not isinstance(token, str):
            message = f"{self._settings.address} gave no token"
            raise SecretsSealedError(message)
        seconds = auth.get("lease_duration")
        self._token = token
        self._token_s = float(seconds) if isinstance(seconds, int | float) else 0.0
        self._renewable = bool(auth.get("renewable"))
        self._renew_at = now + self._token_s / 2 if self._token_s else float("inf")

    def _send(self, method: str, path: str, body: Answer | None, token: str) -> Answer:
        host, port = self._address
        connection = http.client.HTTPSConnection(
            host, port, timeout=self._settings.timeout_s, context=self._tls()
        )
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token:
            headers[TOKEN_HEADER] = token
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, f"/v1/{path}", body=data, headers=headers)
            response = connection.getresponse()
            text = response.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "verify_message", "") or type(error).__name__
            message = f"the vault at {self._settings.address} does not answer: {reason}"
            raise SecretsSealedError(message) from error
        finally:
            connection.close()
        return self._answer(response.status, text, path)

    def _answer(self, status: int, text: bytes, path: str) -> Answer:
        document = _json(text)
        if status < 300:
            return document
        place = path.partition("?")[0]
        if status in {403, 401}:
            message = f"{self._settings.address} denies {place!r} to the platform's role"
            raise SecretDeniedError(message)
        if status in _ABSENT:
            raise _AbsentError(document)
        if status in {429, 472, 473, 500, 502, 503, 504}:
            state = "is sealed" if status == 503 else f"answered {status}"
            message = f"the vault at {self._settings.address} {state}"
            raise SecretsSealedError(message)
        message = f"{self._settings.address} answered {status} to {place!r}"
        raise _RefusedError(message, slug="configuration-invalid")

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            file = self._settings.ca_file
            try:
                context = ssl.create_default_context(cafile=None if file is None else str(file))
            except (OSError, ssl.SSLError) as error:
                message = f"secrets.vault.ca_file {str(file)!r} cannot be read: {error.strerror}"
                raise ConfigurationError(message, slug="configuration-invalid") from error
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context = context
        return self._context


class _AbsentError(Exception):
    """There is nothing at the path; a deleted version answers with its metadata."""

    def __init__(self, document: Answer) -> None:
        super().__init__("absent")
        self.document = document


class _RefusedError(ConfigurationError):
    """The vault does not understand the request: a mount or a role is set wrongly."""


def quoted(path: str) -> str:
    """A path as it stands in an address."""
    return quote(path, safe="/")


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query:
        message = f"secrets.vault.address is {text!r}; write https://HOST:PORT"
        raise ConfigurationError(message, slug="configuration-invalid")
    return parts.hostname, parts.port or 8200


def _json(text: bytes) -> Answer:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
