"""The settings that the running platform uses, with their origins."""

from fastapi import APIRouter, Request
from hivemesh_sdk.contracts.api import Page, View
from pydantic import JsonValue

from hivemesh_platform.api.access import require
from hivemesh_platform.api.bodies import router as strict_router
from hivemesh_platform.configuration import Loaded


class SettingView(View):
    """One setting."""

    key: str
    value: JsonValue
    origin: str


def router(loaded: Loaded) -> APIRouter:
    """The routes."""
    routes = strict_router()

    @routes.get("/v1/config")
    async def get_config(request: Request) -> Page[SettingView]:
        require(request, "read:config")
        rows = loaded.rows()
        return Page(items=[SettingView(key=k, value=v, origin=o) for k, v, o in rows])

    return routes
