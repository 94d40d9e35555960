"""FastAPI, loaded without building its models of OpenAPI documents: who makes one builds them.

They are more than a third of what FastAPI takes to load, in each worker and platform: 70 ms of CPU
and 1.4 MiB.
"""

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True
try:
    from fastapi import FastAPI, Request, Response
finally:
    del BaseModel.model_config["defer_build"]

__all__ = ["FastAPI", "Request", "Response"]
