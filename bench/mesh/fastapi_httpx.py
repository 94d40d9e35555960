"""What is written by hand first: FastAPI with a Pydantic model, and one pooled httpx client."""

import asyncio
import json
from pathlib import Path

import httpx
import pki
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Message(BaseModel):
    id: int
    text: str
    tags: list[str]


async def serve(folder: Path, announce) -> None:
    """Serve until ended."""
    app = FastAPI()

    @app.put("/echo")
    async def echo(message: Message) -> Message:
        return message

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="error",
        access_log=False,
        loop="none",
        ssl_context_factory=lambda *_: pki.server_context(folder),
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    announce(server.servers[0].sockets[0].getsockname()[1])
    await task


class Caller:
    """One pooled client for all calls."""

    def __init__(self, folder: Path, port: int, concurrency: int, body: bytes):
        self._url = f"https://127.0.0.1:{port}/echo"
        self._message = json.loads(body)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.AsyncClient(
            verify=pki.client_context(folder), limits=limits, timeout=30
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._client.aclose()

    async def call(self, _number: int) -> None:
        answer = await self._client.put(
            self._url, json=self._message, extensions={"sni_hostname": pki.SERVER_NAME}
        )
        answer.raise_for_status()
        Message.model_validate_json(answer.content)
