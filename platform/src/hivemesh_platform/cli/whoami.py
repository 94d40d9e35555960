"""`hivemesh whoami`: who this command acts as."""

from hivemesh_platform.cli import output, session


def whoami(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show who you are to the platform, your roles, groups and everything that you may do.

    Examples:  hivemesh whoami  ·  hivemesh whoami -o json
    """
    with session.client(state) as client:
        output.show_one(client.whoami(), fmt, name="name")
