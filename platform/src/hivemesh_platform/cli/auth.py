"""`hivemesh auth`: who may do what, and why; roles, users and groups."""

from typing import TYPE_CHECKING, Annotated

import typer

from hivemesh_platform.cli import output, session
from hivemesh_platform.cli.whoami import whoami

if TYPE_CHECKING:
    from hivemesh_sdk.contracts.access_api import VerdictView

DENIED = 4

app = typer.Typer(no_args_is_help=True)
role_app = typer.Typer(no_args_is_help=True)
group_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    role_app,
    name="role",
    help="Roles: list, show, define, delete.",
    epilog="Examples:  hivemesh auth role list · hivemesh auth role show analyst",
)
app.add_typer(
    group_app,
    name="group",
    help="Groups: list, add and remove members.",
    epilog="Examples:  hivemesh auth group list · hivemesh auth group add SalesTeam anna",
)

User = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]
Action = Annotated[
    str, typer.Argument(metavar="ACTION", help="A verb (read, write, create, run, admin).")
]
Object = Annotated[
    str,
    typer.Argument(metavar="OBJECT", help="kind/name, a kind, or a dataset's name: dataset/sales."),
]
Subject = Annotated[str, typer.Argument(metavar="NAME", help="The user's or group's name.")]
What = Annotated[
    str, typer.Argument(metavar="GRANT", help="A role (analyst) or a grant (read:dataset/sales).")
]
Group = Annotated[bool, typer.Option("--group", "-g", help="NAME is a group, not a user.")]
Tenant = Annotated[str, typer.Option(help="The tenant of a user that is new.")]

app.command("whoami")(whoami)


@app.command()
def can(
    user: User,
    action: Action,
    object_: Object,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Say yes (exit code 0) or no (4): may the user do the action on the object?

    Examples:  hivemesh auth can anna write dataset/sales  ·  hivemesh auth can anna run pipeline/mail
    """
    verdict = _verdict(state, user, action, object_)
    if fmt in {"json", "yaml"}:
        output.show_one(verdict, fmt)
    else:
        typer.echo("yes" if verdict.allowed else "no")
    return 0 if verdict.allowed else DENIED


@app.command()
def explain(
    user: User,
    action: Action,
    object_: Object,
    fmt: output.Format = "table",
    state: session.State = None,
) -> int:
    """Say why: which role or grant allows the action, or what is missing.

    Example:  hivemesh auth explain anna read dataset/sales
    """
    verdict = _verdict(state, user, action, object_)
    if fmt in {"json", "yaml"}:
        output.show_one(verdict, fmt)
    else:
        word = "may" if verdict.allowed else "may not"
        typer.echo(f"{verdict.user} {word} {verdict.action}: {verdict.reason}")
        if not verdict.allowed:
            fix = session.here(f"hivemesh auth grant {verdict.user} {verdict.action}")
            typer.echo(f"fix: {fix}", err=True)
    return 0 if verdict.allowed else DENIED


@app.command()
def users(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the users that have ever been given something, with their roles and groups.

    Example:  hivemesh auth users
    """
    with session.client(state) as client:
        found = client.users()
    output.show_list(
        found,
        [("name", "name"), ("tenant", "tenant"), ("roles", "roles"), ("groups", "groups")],
        fmt,
        wide=[("grants", "grants")],
        empty="no users; name one: hivemesh auth grant anna analyst",
    )


@app.command()
def grant(
    name: Subject,
    what: What,
    *,
    group: Group = False,
    tenant: Tenant = "default",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Give a user or group a role or a grant; in force with the next request.

    Examples:  hivemesh auth grant anna analyst  ·  hivemesh auth grant --group SalesTeam read:sales
    """
    subject = "group" if group else "user"
    with session.client(state) as client:
        given = client.grant(subject, name, what, tenant=tenant)
    if fmt in {"json", "yaml"}:
        output.show_one(given, fmt)
    else:
        word = " --group" if group else ""
        undo = session.here(f"hivemesh auth revoke{word} {name} {given.grant}")
        typer.echo(f"{subject} {name}: + {given.grant} (undo: {undo})")


@app.command()
def revoke(
    name: Subject,
    what: What,
    *,
    group: Group = False,
    tenant: Tenant = "default",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Take a role or a grant from a user or group; in force with the next request.

    Example:  hivemesh auth revoke anna analyst
    """
    subject = "group" if group else "user"
    with session.client(state) as client:
        taken = client.revoke(subject, name, what, tenant=tenant)
    if fmt in {"json", "yaml"}:
        output.show_one(taken, fmt)
    else:
        word = " --group" if group else ""
        undo = session.here(f"hivemesh auth grant{word} {name} {taken.grant}")
        typer.echo(f"{subject} {name}: - {taken.grant} (undo: {undo})")


@role_app.command("list")
def list_roles(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the roles, from the least to the most.

    Example:  hivemesh auth role list
    """
    with session.client(state) as client:
        roles = client.roles()
    output.show_list(
        roles,
        [("name", "name"), ("built in", "built_in"), ("description", "description")],
        fmt,
        wide=[("grants", "grants")],
    )


@role_app.command("show")
def show_role(
    name: Annotated[str, typer.Argument(help="The role's name.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Show what a role grants.

    Example:  hivemesh auth role show analyst
    """
    with session.client(state) as client:
        output.show_one(client.role(name), fmt, name="name")


@role_app.command("define")
def define_role(
    name: Annotated[str, typer.Argument(help="The role's name.")],
    grants: Annotated[list[str], typer.Argument(help="What it grants.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Define a role of your own, or define it anew; whoever has it has the new grants at once.

    Example:  hivemesh auth role define sales-reader read:sales 'run:pipeline/sales*'
    """
    with session.client(state) as client:
        output.show_one(client.put_role(name, grants, description), fmt, name="name")


@role_app.command("delete")
def delete_role(
    name: Annotated[str, typer.Argument(help="The role's name.")],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Delete a role that you have defined; whoever has it loses it.

    Example:  hivemesh auth role delete sales-reader
    """
    with session.client(state) as client:
        client.delete_role(name)
    output.show_done(f"the role {name} is deleted", {"role": name, "deleted": True}, fmt)


@group_app.command("list")
def list_groups(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show the groups with their members, roles and grants.

    Example:  hivemesh auth group list
    """
    with session.client(state) as client:
        groups = client.groups()
    output.show_list(
        groups,
        [("name", "name"), ("grants", "grants"), ("members", "members")],
        fmt,
        empty="no groups; map one: hivemesh auth grant --group SalesTeam analyst",
    )


@group_app.command("add")
def add_member(
    group: Annotated[str, typer.Argument(help="The group's name.")],
    user: User,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Put a user into a group; he has its roles and grants with his next request.

    Example:  hivemesh auth group add SalesTeam anna
    """
    with session.client(state) as client:
        client.set_member(group, user, member=True)
    undo = session.here(f"hivemesh auth group remove {group} {user}")
    said = f"{user} is in {group} (undo: {undo})"
    output.show_done(said, {"group": group, "user": user, "member": True}, fmt)


@group_app.command("remove")
def remove_member(
    group: Annotated[str, typer.Argument(help="The group's name.")],
    user: User,
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Take a user out of a group; in force with his next request.

    Example:  hivemesh auth group remove SalesTeam anna
    """
    with session.client(state) as client:
        client.set_member(group, user, member=False)
    undo = session.here(f"hivemesh auth group add {group} {user}")
    said = f"{user} is not in {group} (undo: {undo})"
    output.show_done(said, {"group": group, "user": user, "member": False}, fmt)


def _verdict(state: session.State, user: str, action: str, object_: str) -> "VerdictView":
    with session.client(state) as client:
        return client.can(f"{action}:{object_}", user)
