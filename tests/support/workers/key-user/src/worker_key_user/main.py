"""Uses a secret as it should be used, and in each way in which it might get out."""

import base64
import hashlib
import hmac
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from hivemesh_sdk import Context, FatalError, Record, Rejected, Secret, Worker

worker = Worker()


class Use(Record):
    key: Secret
    how: str = ""
    also: str = ""  # a path that is asked for though no option names it


class Quick(Record):
    key: Secret


class Size(Record):
    size: int = 10
    pause_s: float = 0


class Number(Record):
    n: int


class Signed(Record):
    n: int
    signature: str


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def run_child(context: Context) -> None:
    """Have a child of the executor until the step is cancelled."""
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        context.progress(1, 2, "children")
        while not context.cancelled:
            time.sleep(0.05)
        child.kill()


@worker.call("key.use@1")
def use(input: object, options: Use, context: Context) -> dict[str, object]:  # noqa: A002
    value = options.key.reveal()
    if options.also:
        return {"digest": digest(context.secrets.get(options.also).reveal())}
    match options.how:
        case "answer":
            return {"value": value}
        case "basic":
            return {"header": base64.b64encode(f"user:{value}".encode()).decode()}
        case "artifact":
            context.artifacts.put(f"the key is {value}".encode())
        case "log":
            said = f"using {value}"
            context.log.warning(said, key=value, hexadecimal=value.encode().hex())
            sys.stdout.write(f"printed {value}\n")
            sys.stderr.write(f"printed {value}\n")
        case "raise":
            raise FatalError(f"login with {value} failed")
        case "break":
            raise ValueError(f"login with {value} failed")
        case "child":
            run_child(context)
        case "crash":
            os.abort()
    return {"digest": digest(value), "shown": str(options.key), "all": repr(options)}


@worker.call("key.quick@1", run_in="inline")
async def quick(input: object, options: Quick, context: Context) -> dict[str, str]:  # noqa: A002
    return {"digest": digest(options.key.reveal()), "shown": f"{options.key}"}


@worker.source("key.count@1")
def count(options: Size, start: int | None, context: Context) -> Iterator[tuple[Number, int]]:
    for number in range(start or 0, options.size):
        time.sleep(options.pause_s)
        yield Number(number), number + 1


@worker.map("key.sign@1")
def sign(records: list[Number], options: Quick, context: Context) -> list[Signed | Rejected]:
    key = options.key.reveal().encode()
    return [
        Signed(one.n, hmac.new(key, str(one.n).encode(), "sha256").hexdigest()) for one in records
    ]
