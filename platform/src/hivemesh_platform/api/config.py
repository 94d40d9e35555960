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
    async def list_settings(request: Request) -> Page[SettingView]:
        """List the settings in force, and where each comes from."""
        require(request, "read:config")
        rows = loaded.rows()
        return Page(items=[SettingView(key=k, value=v, origin=o) for k, v, o in rows])

    return routes
