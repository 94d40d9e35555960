"""The wire contract: every document that crosses a process boundary.

Machine messages are msgspec structs and ignore fields they do not know; what people write is
Pydantic and refuses them. Nothing here does I/O.
"""
