"""`whoami`, `auth` and `token`, against a platform, by certificate and by token from elsewhere."""

import json
from pathlib import Path

import pytest
from hivemesh_platform.app import Platform
from hivemesh_platform.cli import session
from hivemesh_platform.cli.values import seconds
from hivemesh_sdk.errors import ConfigurationError

pytestmark = pytest.mark.integration


async def test_the_command_of_the_state_folder_is_the_operator(hivemesh) -> None:
    said = await hivemesh("whoami -o json")
    assert json.loads(said.out)["roles"] == ["admin"]
    assert (await hivemesh("auth whoami -o name")).out == "operator\n"


async def test_what_is_granted_is_explained_and_taken_away(hivemesh) -> None:
    assert (await hivemesh("auth can anna write dataset/sales")).code == 4
    assert "undo: hivemesh auth revoke anna" in (await hivemesh("auth grant anna write:sales")).out
    said = await hivemesh("auth can anna write dataset/sales")
    assert (said.code, said.out) == (0, "yes\n")
    assert (await hivemesh("auth can anna write dataset/other")).out == "no\n"
    said = await hivemesh("auth explain anna write sales -o json")
    assert json.loads(said.out)["rule"] == "write:dataset/sales"
    said = await hivemesh("auth explain anna read sales")
    assert said.code == 4
    assert "hivemesh auth grant anna read:dataset/sales" in said.err
    assert (await hivemesh("auth revoke anna write:sales")).code == 0
    assert (await hivemesh("auth revoke anna write:sales")).code == 3


async def test_groups_map_to_roles_and_grants(hivemesh) -> None:
    await hivemesh("auth grant --group SalesTeam read:sales_data")
    await hivemesh("auth grant -g SalesTeam viewer")
    await hivemesh("auth group add SalesTeam anna")
    (group,) = json.loads((await hivemesh("auth group list -o json")).out)
    assert group["members"] == ["anna"]
    (anna,) = json.loads((await hivemesh("auth users -o json")).out)
    assert (anna["roles"], anna["groups"]) == (["viewer"], ["SalesTeam"])
    await hivemesh("auth group remove SalesTeam anna")
    assert (await hivemesh("auth can anna read sales_data")).code == 4


async def test_roles_are_listed_shown_defined_and_deleted(hivemesh) -> None:
    names = (await hivemesh("auth role list -o name")).out.split()
    assert names[-5:] == ["viewer", "analyst", "author", "operator", "admin"]
    said = await hivemesh("auth role define reader read:sales")
    assert "read:dataset/sales" in said.out
    assert (await hivemesh("auth role show reader")).code == 0
    assert (await hivemesh("auth role delete reader")).code == 0
    assert (await hivemesh("auth role show reader")).code == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("auth grant anna boss", "known are viewer"),
        ("auth grant anna delete:run", "allowed are read, write"),
        ("auth grant anna read:table/x", "allowed are artifact"),
        ("auth can anna fly run/x", "allowed are read, write"),
    ],
)
async def test_unknown_words_are_told_with_the_known_ones(hivemesh, line: str, told: str) -> None:
    said = await hivemesh(line)
    assert said.code == 2
    assert told in said.err


async def test_a_token_is_shown_once_and_works_from_elsewhere(
    hivemesh, found: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hivemesh("auth grant anna viewer")
    said = await hivemesh("token create --name ci --user anna --ttl 1h")
    token = said.out.strip()
    assert token.startswith("hm1.")
    assert "not shown again" in said.err
    (listed,) = json.loads((await hivemesh("token list -o json")).out)
    assert token not in str(listed)
    (tmp_path / "ci.token").write_text(token + "\n")
    root = found.state_folder / "trust" / "web-root.pem"
    there = ("--server", found.people_url, "--ca-file", str(root))
    by_file = (*there, f"--token-file={tmp_path / 'ci.token'}")
    said = await hivemesh("whoami -o json", *by_file)
    assert json.loads(said.out)["name"] == "anna"
    assert (await hivemesh("worker list", *by_file)).code == 0
    assert (await hivemesh("worker scale echo 2", *by_file)).code == 4
    assert (await hivemesh("auth users", *by_file)).code == 4
    assert (await hivemesh("secret show a.b", *by_file)).code in {2, 3}
    assert (await hivemesh("token create --name more", *by_file)).code == 4
    session._chosen.clear()
    monkeypatch.setenv("HIVEMESH_SERVER", found.people_url)
    monkeypatch.setenv("HIVEMESH_CA_FILE", str(root))
    assert (await hivemesh("whoami")).code == 4  # no token
    monkeypatch.setenv("HIVEMESH_TOKEN", token)
    assert (await hivemesh("whoami -o name")).out == "anna\n"
    monkeypatch.delenv("HIVEMESH_SERVER")
    assert (await hivemesh("token revoke", listed["id"])).code == 0
    said = await hivemesh("whoami", "--server", found.people_url)
    assert said.code == 4
    assert "HM-1712" in said.err


async def test_no_platform_is_started_where_one_elsewhere_is_named(
    hivemesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIVEMESH_SERVER", "https://localhost:1")
    said = await hivemesh("up -d")
    assert said.code in {1, 2}
    assert "is a platform elsewhere" in said.err


async def test_a_token_is_never_an_option(hivemesh) -> None:
    assert (await hivemesh("whoami --token hm1.x.y")).code == 2


async def test_who_has_another_root_is_not_believed(
    hivemesh, found: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIVEMESH_TOKEN", "hm1.x.y")
    said = await hivemesh("whoami", "--server", found.people_url)
    assert said.code == 7
    assert "certificate was not accepted" in said.err


async def test_a_join_token_is_made_for_a_worker(hivemesh) -> None:
    said = await hivemesh("worker join-token echo --ttl 5m")
    assert said.out.splitlines()[-1].startswith("jt1.")
    assert (await hivemesh("worker join-token echo --ttl 2d")).code == 2


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("30d", 2_592_000)]
)
def test_durations_have_a_unit(text: str, value: float) -> None:
    assert seconds(text, "--ttl") == value


@pytest.mark.parametrize("text", ["", "5", "d", "-5m", "1w", "1e3s"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--ttl: .* write 15m, 12h or 30d") as caught:
        seconds(text, "--ttl")
    assert caught.value.problem().code == "HM-1610"  # misuse of the command, not of a setting


def test_the_options_of_a_server_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_chosen", {})
    words = [
        "--server",
        "https://a",
        "run",
        "--ca-file=b",
        "list",
        "--token-file",
        "c",
        "-o",
        "json",
    ]
    assert session.take_remote(words) == ["run", "list", "-o", "json"]
    assert session.remote() == session.Remote("https://a", "c", "b")
