"""Two workers of the tests of calls: one converts and books what it did at the other."""

from hivemesh_sdk import Context, Worker

converter = Worker()
ledger = Worker()
BOOKED: list[int] = []  # in the process that serves


@converter.call("doc.convert@1")
def convert(amount: int, context: Context) -> dict:
    left_s = context.deadline
    return {"left_s": left_s, "booked": context.call("ledger.book@1", amount, {"unit": "EUR"})}


@converter.call("doc.twice@1")
def twice(amount: int, context: Context) -> list:
    return [
        context.call("ledger.book@1", amount),
        context.call("ledger.book@1", amount),
        context.call("ledger.book@1", amount, name="once-more"),
    ]


@converter.call("doc.convert_async@1", run_in="inline")
async def convert_async(amount: int, context: Context) -> dict:
    left_s = context.deadline
    return {"left_s": left_s, "booked": await context.call_async("ledger.book@1", amount)}


@converter.call("doc.strays@1", run_in="inline")
async def strays(amount: int, context: Context) -> dict:
    return {"booked": await context.call_async("ledger.erase@1", amount)}


@converter.call("doc.starts@1")
def starts(amount: int, context: Context) -> list:
    return [
        context.submit("ledger.book@1", amount, {"unit": "EUR"}),
        context.submit("ledger.book@1", amount, {"unit": "EUR"}),
        context.submit("ledger.book@1", amount, name="once-more"),
    ]


@converter.call("doc.starts_async@1", run_in="inline")
async def starts_async(amount: int, context: Context) -> str:
    return await context.submit_async("ledger.book@1", amount)


@ledger.call("ledger.book@1", run_in="inline")
async def book(amount: int, options: dict, context: Context) -> dict:
    BOOKED.append(amount)
    unit = options.get("unit", "")
    return {"amount": amount, "unit": unit, "key": context.key, "left_s": context.deadline}
