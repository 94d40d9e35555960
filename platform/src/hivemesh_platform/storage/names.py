"""How the database server calls our connections."""


def application_name(replica: str) -> str:
    """How the connections of a replica are called."""
    return f"hivemesh {replica}"
