"""`hivemesh token`: API tokens for programs and people that have no certificate."""

from typing import Annotated

import typer

from hivemesh_platform.cli import output, session

app = typer.Typer(no_args_is_help=True)


@app.command()
def create(  # noqa: PLR0913 - the options of the command
    *,
    name: Annotated[str, typer.Option(help="What it is for, as `token list` shows it.")],
    role: Annotated[
        list[str] | None, typer.Option("--role", help="A role that it has; may be repeated.")
    ] = None,
    grant: Annotated[
        list[str] | None, typer.Option("--grant", help="A grant that it has; may be repeated.")
    ] = None,
    user: Annotated[str, typer.Option(help="Whose token it is (default: yours).")] = "",
    ttl: Annotated[str, typer.Option(help="How long it is valid: 30d, 12h, 15m.")] = "30d",
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Make an API token and print it, this once; without --role and --grant it has all of its owner's.

    Examples:  hivemesh token create --name ci --role analyst --ttl 30d > ci.token  ·
    hivemesh token create --name export --grant read:dataset/sales --user anna
    """
    from hivemesh_platform.cli.values import seconds

    with session.client(state) as client:
        made = client.create_api_token(
            name, user=user, roles=role, grants=grant, lifetime_s=seconds(ttl, "--ttl")
        )
    if fmt in {"json", "yaml"}:
        output.show_one(made, fmt)
        return
    typer.echo(made.id if fmt == "name" else made.token)
    typer.echo(
        f"token {made.id} of {made.owner} with {', '.join(made.scope)}, valid until "
        f"{output.local_time(made.expires_at)}; it is not shown again "
        f"(undo: {session.here(f'hivemesh token revoke {made.id}')})",
        err=True,
    )


@app.command("list")
def list_(fmt: output.Format = "table", state: session.State = None) -> None:
    """Show your API tokens, or everybody's if you may see them, and when each was used last.

    Example:  hivemesh token list
    """
    with session.client(state) as client:
        tokens = client.api_tokens()
    output.show_list(
        tokens,
        [
            ("id", "id"),
            ("name", "name"),
            ("owner", "owner"),
            ("state", "state"),
            ("scope", "scope"),
            ("expires", "expires_at"),
            ("last used", "last_used_at"),
        ],
        fmt,
        wide=[("made by", "created_by"), ("made", "created_at")],
        empty="no tokens; make one: hivemesh token create --name ci --role analyst",
    )


@app.command()
def revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="The token's id, as `token list` shows it.")
    ],
    fmt: output.Format = "table",
    state: session.State = None,
) -> None:
    """Refuse an API token from now on; this cannot be undone.

    Example:  hivemesh token revoke 5f2c9a0b1d3e4f60
    """
    with session.client(state) as client:
        token = client.revoke_api_token(token_id)
    if fmt in {"json", "yaml", "name"}:
        output.show_one(token, fmt)
    else:
        typer.echo(f"token {token.id} ({token.name}) is revoked")
