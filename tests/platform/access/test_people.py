"""Users, groups, roles and tokens: given, taken away, in force with the next request."""

from datetime import timedelta

import pytest
from api_support import peer
from hivemesh_platform.access.people import GrantTooWideError, PeopleService, RoleUnknownError
from hivemesh_platform.access.ports import IdentityProviders, ProviderUnknownError, SignedIn
from hivemesh_platform.access.roles import Role
from hivemesh_platform.access.service import AccessService, TokenRefusedError
from hivemesh_platform.access.store import Subject
from hivemesh_platform.access.tokens import ApiToken
from hivemesh_platform.audit.model import AuditEvent
from hivemesh_platform.storage.database import Database
from hivemesh_platform.storage.errors import StorageFullError
from hivemesh_sdk.errors import (
    ConfigurationError,
    ConflictError,
    InvalidError,
    NotAuthorizedError,
    NotFoundError,
    RetryableError,
)
from hivemesh_sdk.testing.clock import ManualClock
from hivemesh_sdk.trust.identity import SpiffeId

DOMAIN = "test.hivemesh.internal"
ANNA = Subject("user", "anna")


class Trail:
    """An audit trail that remembers, and can be full."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.full = False

    async def record(self, event: AuditEvent) -> None:
        if self.full:
            raise RetryableError
        self.events.append(event)

    def note(self, event: AuditEvent) -> None:
        self.events.append(event)


class People:
    def __init__(self, access: AccessService, service: PeopleService, trail: Trail) -> None:
        self.access = access
        self.service = service
        self.trail = trail

    async def admin(self):
        return await self.access.user("operator")

    async def give(self, name: str, *what: str, kind: str = "user", tenant: str = "default"):
        for one in what:
            await self.service.grant(await self.admin(), Subject(kind, name, tenant), one)

    async def token(self, owner: str, *scope: str, **options: object) -> str:
        actor = await self.access.user(owner)
        text, _ = await self.service.create_token(actor, "ci", owner=owner, scope=scope, **options)
        return text


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def people(database: Database, clock: ManualClock) -> People:
    access, trail = AccessService(database, clock, DOMAIN), Trail()
    return People(access, PeopleService(access, trail), trail)


async def test_who_was_never_named_may_do_nothing(people: People) -> None:
    found = await people.access.user("anna")
    assert (found.roles, found.grants, found.tenant) == ((), (), "default")
    assert found.id == f"spiffe://{DOMAIN}/user/anna"


async def test_the_operator_certificate_is_an_admins_for_good(people: People) -> None:
    operator = await people.access.principal_of(peer(SpiffeId.user(DOMAIN, "operator")))
    assert operator.roles == ("admin",)
    assert operator.rights.allows("admin", "ca", "root")
    with pytest.raises(ConflictError):
        await people.service.revoke(operator, Subject("user", "operator"), "admin")


async def test_a_role_counts_from_the_next_request_until_it_is_taken(people: People) -> None:
    await people.give("anna", "analyst")
    assert (await people.access.user("anna")).rights.allows("run", "pipeline", "x")
    await people.service.revoke(await people.admin(), ANNA, "analyst")
    assert (await people.access.user("anna")).grants == ()


async def test_a_group_gives_what_it_has_to_its_members(people: People) -> None:
    await people.give("SalesTeam", "read:sales_data", "write:reports", kind="group")
    admin = await people.admin()
    await people.service.set_member(admin, "SalesTeam", "anna", member=True)
    anna = await people.access.user("anna")
    assert anna.grants == ("read:dataset/sales_data", "write:dataset/reports")
    assert anna.groups == ("SalesTeam",)
    assert people.access.allows(anna, "read:dataset", "sales_data").reason == (
        "group SalesTeam allows read:dataset/sales_data"
    )
    await people.service.set_member(admin, "SalesTeam", "anna", member=False)
    assert (await people.access.user("anna")).grants == ()
    with pytest.raises(NotFoundError):
        await people.service.set_member(admin, "SalesTeam", "anna", member=False)


async def test_groups_that_a_directory_tells_are_mapped_here(people: People) -> None:
    await people.give("SalesTeam", "read:sales_data", kind="group")
    found = await people.access.signed_in(SignedIn("anna", ("SalesTeam", "Unmapped")))
    assert found.grants == ("read:dataset/sales_data",)
    assert found.groups == ("SalesTeam", "Unmapped")
    assert (await people.access.user("anna")).grants == ()  # no membership is kept


async def test_a_directory_makes_nobody_the_operator(people: People) -> None:
    for groups in ((), ("Admins",)):
        assert (await people.access.signed_in(SignedIn("operator", groups))).grants == ()


async def test_nobody_gives_more_than_he_has(people: People) -> None:
    await people.give("bert", "analyst", "write:user", "write:group", "write:role")
    bert = await people.access.user("bert")
    for what in ("admin", "author", "write:pipeline/x", "admin:*"):
        with pytest.raises(GrantTooWideError):
            await people.service.grant(bert, ANNA, what)
    with pytest.raises(GrantTooWideError):
        await people.service.put_role(bert, Role("mine", "", ("read:secret",)))
    await people.give("Admins", "admin:all", kind="group")
    with pytest.raises(GrantTooWideError):
        await people.service.set_member(bert, "Admins", "bert", member=True)
    assert await people.service.grant(bert, ANNA, "viewer") == "role:viewer"


async def test_unknown_roles_are_refused_with_the_known_ones(people: People) -> None:
    with pytest.raises(RoleUnknownError, match="viewer, analyst, author, operator, admin"):
        await people.give("anna", "boss")


async def test_what_somebody_has_not_cannot_be_taken(people: People) -> None:
    with pytest.raises(NotFoundError):
        await people.service.revoke(await people.admin(), ANNA, "read:x")


async def test_an_own_role_is_data(people: People) -> None:
    admin = await people.admin()
    await people.service.put_role(admin, Role("reader", "reads x", ("read:x",)))
    await people.give("anna", "reader")
    assert (await people.access.user("anna")).grants == ("read:dataset/x",)
    await people.service.put_role(admin, Role("reader", "reads y", ("read:y",)))
    assert (await people.access.user("anna")).grants == ("read:dataset/y",)
    await people.service.delete_role(admin, "reader")
    assert (await people.access.user("anna")).grants == ()
    for name in ("admin", "viewer"):
        with pytest.raises(ConflictError):
            await people.service.delete_role(admin, name)


async def test_a_token_acts_as_its_owner_with_no_more_than_its_scope(people: People) -> None:
    await people.give("anna", "analyst")
    text = await people.token("anna", "role:viewer", "run:pipeline/x")
    found = await people.access.principal_of(text)
    assert found.id == f"spiffe://{DOMAIN}/user/anna"
    assert found.actor.startswith("token:")
    assert found.roles == ("viewer",)
    assert found.rights.allows("run", "pipeline", "x")
    assert not found.rights.allows("run", "pipeline", "y")


async def test_a_token_loses_what_its_owner_loses(people: People) -> None:
    await people.give("anna", "analyst", "read:secret/a.b")
    text = await people.token("anna")
    assert (await people.access.principal_of(text)).roles == ("analyst",)
    await people.service.revoke(await people.admin(), ANNA, "analyst")
    found = await people.access.principal_of(text)
    assert (found.roles, found.grants) == ((), ("read:secret/a.b",))


async def test_a_scope_is_never_wider_than_what_its_maker_and_its_owner_have(
    people: People,
) -> None:
    await people.give("anna", "analyst")
    with pytest.raises(GrantTooWideError):
        await people.token("anna", "role:author")
    with pytest.raises(GrantTooWideError):  # the admin has it, she has not
        await people.service.create_token(
            await people.admin(), "ci", owner="anna", scope=("role:author",)
        )


async def test_who_has_the_grants_of_a_role_has_not_the_role(people: People) -> None:
    admin = await people.admin()
    cleared = Role("pii-cleared", "what a rule asks for", ("read:dataset",), built_in=False)
    await people.service.put_role(admin, cleared)
    await people.give("anna", "viewer", "write:user")
    anna = await people.access.user("anna")
    with pytest.raises(GrantTooWideError, match="pii-cleared"):
        await people.token("anna", "role:pii-cleared")
    with pytest.raises(GrantTooWideError, match="anna does not hold"):
        await people.service.create_token(admin, "ci", owner="anna", scope=("role:pii-cleared",))
    with pytest.raises(GrantTooWideError, match="pii-cleared"):
        await people.service.grant(anna, ANNA, "pii-cleared")
    await people.give("Cleared", "pii-cleared", kind="group")
    with pytest.raises(GrantTooWideError, match="pii-cleared"):
        await people.service.set_member(anna, "Cleared", "anna", member=True)


async def test_a_token_has_a_role_only_while_its_owner_holds_it(people: People) -> None:
    cleared = Role("pii-cleared", "what a rule asks for", ("read:dataset",), built_in=False)
    await people.service.put_role(await people.admin(), cleared)
    await people.give("anna", "author", "pii-cleared")
    text = await people.token("anna", "role:pii-cleared", "role:analyst")
    found = await people.access.principal_of(text)
    assert found.roles == ("analyst", "pii-cleared")
    await people.service.revoke(await people.admin(), ANNA, "pii-cleared")
    found = await people.access.principal_of(text)
    assert found.roles == ("analyst",)
    assert found.rights.allows("read", "dataset", "x")


async def test_a_token_of_grants_remembers_the_roles_of_its_owner_for_denials(
    people: People,
) -> None:
    bad = Role("contractor", "what a denial names", ("read:dataset",), built_in=False)
    await people.service.put_role(await people.admin(), bad)
    await people.give("bert", "analyst", "contractor")
    found = await people.access.principal_of(await people.token("bert", "run:capability"))
    assert (found.roles, found.other_roles) == ((), ("analyst", "contractor"))


async def test_an_admins_token_has_no_role_that_nobody_has_given_him(people: People) -> None:
    cleared = Role("pii-cleared", "what a rule asks for", ("read:dataset",), built_in=False)
    await people.service.put_role(await people.admin(), cleared)
    found = await people.access.principal_of(await people.token("operator", "role:pii-cleared"))
    assert (found.roles, found.grants) == ((), ("read:dataset/*",))


async def test_nobody_has_more_tokens_than_he_can_keep_an_eye_on(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hivemesh_platform.access.people.TOKENS_PER_USER", 2)
    first = await people.token("operator")
    await people.token("operator")
    with pytest.raises(ConflictError):
        await people.token("operator")
    await people.service.revoke_token(await people.admin(), ApiToken.parse(first).id)
    await people.token("operator")


async def test_a_token_makes_no_tokens(people: People) -> None:
    await people.give("anna", "analyst")
    bearer = await people.access.principal_of(await people.token("anna"))
    with pytest.raises(NotAuthorizedError):
        await people.service.create_token(bearer, "more", owner="anna")


async def test_a_token_ends_when_it_expires(people: People, clock: ManualClock) -> None:
    text = await people.token("operator", lifetime=timedelta(hours=1))
    await people.access.principal_of(text)
    clock.advance(3599)
    await people.access.principal_of(text)
    clock.advance(1)
    with pytest.raises(TokenRefusedError):
        await people.access.principal_of(text)


async def test_a_revoked_token_is_refused_at_once(people: People) -> None:
    text = await people.token("operator")
    found = await people.access.principal_of(text)
    await people.service.revoke_token(await people.admin(), found.token_id)
    with pytest.raises(TokenRefusedError):
        await people.access.principal_of(text)


async def test_tokens_of_any_other_form_are_refused_alike(people: People) -> None:
    known = ApiToken.parse(await people.token("operator"))
    assert known is not None
    guessed = ApiToken(known.id, ApiToken.new().secret)
    wrong = ("", "hm1", "hm1.x.y", ApiToken.new().reveal(), guessed.reveal(), "x" * 10_000)
    for text in wrong:
        with pytest.raises(TokenRefusedError) as refused:
            await people.access.principal_of(text)
        assert refused.value.problem().detail == ""


async def test_of_a_token_only_a_hash_is_kept(people: People) -> None:
    secret = ApiToken.parse(await people.token("operator")).secret
    kept = await people.access.database.read(lambda tx: tx.all("SELECT * FROM api_token"))
    assert secret not in str([tuple(row) for row in kept])
    assert secret not in str(people.trail.events)


async def test_the_last_use_of_a_token_is_told(people: People, clock: ManualClock) -> None:
    text = await people.token("operator")
    admin = await people.admin()
    assert (await people.service.tokens(admin))[0].last_used_at is None
    token = await people.access.principal_of(text)
    assert people.access.used_at(token.token_id)
    await people.access.flush()
    used = (await people.service.tokens(admin))[0].last_used_at
    assert used == round(clock.now().timestamp() * 1000)


async def test_uses_of_tokens_wait_for_space(
    people: People, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await people.access.principal_of(await people.token("operator"))
    assert people.access.used_at(token.token_id)

    async def full(_work: object) -> None:
        message = "the disk is full"
        raise StorageFullError(message)

    with monkeypatch.context() as patched:
        patched.setattr(people.access.database, "write", full)
        with pytest.raises(StorageFullError):
            await people.access.flush()
    await people.access.flush()
    used = (await people.service.tokens(await people.admin()))[0].last_used_at
    assert used == round(clock.now().timestamp() * 1000)


async def test_everybody_sees_and_revokes_his_own_tokens(people: People) -> None:
    await people.give("anna", "viewer")
    await people.give("bert", "viewer")
    text = await people.token("anna")
    anna, bert = await people.access.user("anna"), await people.access.user("bert")
    token_id = ApiToken.parse(text).id
    assert [one.id for one in await people.service.tokens(anna)] == [token_id]
    assert await people.service.tokens(bert) == []
    with pytest.raises(NotFoundError):
        await people.service.revoke_token(bert, token_id)
    await people.service.revoke_token(anna, token_id)


async def test_who_may_read_tokens_may_not_thereby_revoke_them(people: People) -> None:
    await people.give("anna", "viewer")
    await people.give("eve", "read:*")
    await people.give("bert", "write:token")
    text = await people.token("anna")
    token_id = ApiToken.parse(text).id
    eve, bert = await people.access.user("eve"), await people.access.user("bert")
    assert [one.id for one in await people.service.tokens(eve)] == [token_id]
    with pytest.raises(NotAuthorizedError, match="write:token"):
        await people.service.revoke_token(eve, token_id)
    assert (await people.access.principal_of(text)).token_id == token_id
    assert [one.id for one in await people.service.tokens(bert)] == [token_id]
    await people.service.revoke_token(bert, token_id)
    with pytest.raises(TokenRefusedError):
        await people.access.principal_of(text)


@pytest.mark.parametrize("hours", [0, -1, 24 * 367])
async def test_a_token_lives_a_year_at_most(people: People, hours: int) -> None:
    with pytest.raises(InvalidError):
        await people.token("operator", lifetime=timedelta(hours=hours))


async def test_an_admin_of_a_tenant_rules_that_tenant(people: People) -> None:
    await people.give("boss", "admin", tenant="acme")
    await people.give("anna", "viewer")
    boss = await people.access.user("boss")
    assert boss.tenant == "acme"
    await people.service.grant(boss, Subject("user", "carl"), "analyst")
    assert (await people.access.user("carl")).tenant == "acme"
    for subject in (ANNA, Subject("user", "operator")):
        with pytest.raises(NotFoundError):
            await people.service.grant(boss, subject, "viewer")
    assert [one.name for one in await people.service.users(boss)] == ["boss", "carl"]
    assert [one.name for one in await people.service.users(await people.admin())] == ["anna"]


async def test_every_change_is_recorded_first_and_not_made_where_it_cannot_be(
    people: People,
) -> None:
    await people.give("anna", "viewer")
    assert [(one.action, one.target) for one in people.trail.events] == [("write:user", "anna")]
    people.trail.full = True
    with pytest.raises(RetryableError):
        await people.give("anna", "admin")
    assert (await people.access.user("anna")).roles == ("viewer",)
    with pytest.raises(RetryableError):
        await people.token("operator")
    assert await people.service.tokens(await people.admin()) == []


@pytest.mark.parametrize("name", ["", "Anna", "a b", "../x", "a" * 64, "a.b"])
async def test_a_user_has_a_name_that_fits_an_identity(people: People, name: str) -> None:
    with pytest.raises(InvalidError):
        await people.give(name, "viewer")


def test_an_unknown_type_of_provider_is_refused_with_the_known_ones() -> None:
    providers = IdentityProviders()
    providers.register_provider("ldap", lambda _options: None)
    with pytest.raises(ProviderUnknownError, match=r"'kerberos' is no type.*known: ldap"):
        providers.create("kerberos", {})
    with pytest.raises(ConfigurationError):
        providers.register_provider("ldap", lambda _options: None)
    assert providers.create("ldap", {}) is None
