from pathlib import Path

import pytest
from hivemesh_platform.configuration import Loaded, Surroundings, load, load_valid, state_folder_of
from hivemesh_sdk.errors import ConfigurationError


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    project = tmp_path / "project"
    project.mkdir()
    home = tmp_path / "home"
    (home / ".config" / "hivemesh").mkdir(parents=True)
    return Surroundings(
        environment={},
        working_folder=project,
        home=home,
        system_file=tmp_path / "etc" / "hivemesh.yaml",
    )


def with_environment(surroundings: Surroundings, **variables: str) -> Surroundings:
    return Surroundings(
        environment=variables,
        working_folder=surroundings.working_folder,
        home=surroundings.home,
        system_file=surroundings.system_file,
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_defaults_need_no_file(surroundings: Surroundings) -> None:
    loaded = load(surroundings)
    assert loaded.settings.api.port == 8443
    assert loaded.origin("api.port") == "default"


def every_source(surroundings: Surroundings) -> tuple[Surroundings, dict[str, object]]:
    write(surroundings.system_file, "api: {port: 1}")
    write(surroundings.user_file, "api: {port: 2}")
    write(surroundings.working_folder / "hivemesh.yaml", "api: {port: 3}")
    return with_environment(surroundings, HIVEMESH_API__PORT="4"), {"api.port": 5}


def test_a_flag_wins_over_everything(surroundings: Surroundings) -> None:
    sources, flags = every_source(surroundings)
    loaded = load(sources, flags)
    assert (loaded.settings.api.port, loaded.origin("api.port")) == (5, "flag api.port")


def test_the_environment_wins_over_files(surroundings: Surroundings) -> None:
    sources, _ = every_source(surroundings)
    loaded = load(sources)
    assert loaded.settings.api.port == 4
    assert loaded.origin("api.port") == "environment HIVEMESH_API__PORT"


def test_the_project_file_wins_over_the_user_file_and_that_over_the_system_file(
    surroundings: Surroundings,
) -> None:
    every_source(surroundings)
    project = surroundings.working_folder / "hivemesh.yaml"
    assert load(surroundings).origin("api.port") == str(project)
    project.unlink()
    assert load(surroundings).origin("api.port") == str(surroundings.user_file)
    surroundings.user_file.unlink()
    assert load(surroundings).settings.api.port == 1


def test_files_are_laid_over_each_other_key_by_key(surroundings: Surroundings) -> None:
    write(surroundings.user_file, "workers: {instances: {a: 2, b: 3}}\napi: {host: 127.0.0.2}")
    write(surroundings.working_folder / "hivemesh.yaml", "workers: {instances: {b: 4}}")
    settings = load(surroundings).settings
    assert settings.workers.instances == {"a": 2, "b": 4}
    assert settings.api.host == "127.0.0.2"


def message(surroundings: Surroundings, **flags: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(surroundings, {key.replace("__", "."): value for key, value in flags.items()})
    assert caught.value.slug == "configuration-invalid"
    return caught.value.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api: {prot: 1}", "unknown key 'api.prot'"),
        ("api: {prot: 1}", "did you mean 'api.port'"),
        ("apo: {port: 1}", "did you mean 'api'"),
        ("zzz: 1", "known are api,"),
        ("api: 5", "api is a section"),
        ("- a", "must be a mapping"),
        ("api: {port: 70000}", "api.port"),
        ("api: {port: 1, port: 2}", "written twice"),
        ("mode: test", "mode"),
    ],
)
def test_a_wrong_file_is_refused_and_the_place_named(
    surroundings: Surroundings, text: str, expected: str
) -> None:
    write(surroundings.user_file, text)
    detail = message(surroundings)
    assert expected in detail
    assert "hivemesh.yaml" in detail


def test_an_unknown_variable_is_refused_with_a_suggestion(surroundings: Surroundings) -> None:
    detail = message(with_environment(surroundings, HIVEMESH_API__PROT="1"))
    assert "did you mean 'api.port'" in detail
    assert "HIVEMESH_API__PROT" in detail


def test_a_variable_with_one_underscore_too_few_is_refused(surroundings: Surroundings) -> None:
    detail = message(with_environment(surroundings, HIVEMESH_API_PORT="1"))
    assert "did you mean HIVEMESH_API__PORT" in detail


def test_a_variable_that_names_a_section_is_refused(surroundings: Surroundings) -> None:
    detail = message(with_environment(surroundings, HIVEMESH_STATE="/x"))
    assert "HIVEMESH_STATE__FOLDER" in detail


def test_variables_that_are_no_settings_are_left_alone(surroundings: Surroundings) -> None:
    load(with_environment(surroundings, HIVEMESH_TEST_DATA="/x", HIVEMESH_CRASH_AT="claim", A="b"))


def test_a_variable_names_a_worker_with_underscores(surroundings: Surroundings) -> None:
    name = "HIVEMESH_WORKERS__INSTANCES__EMAIL_CLASSIFIER"
    loaded = load(with_environment(surroundings, **{name: "3"}))
    assert loaded.settings.workers.instances == {"email-classifier": 3}


def test_a_variable_may_hold_a_list_as_json(surroundings: Surroundings) -> None:
    loaded = load(with_environment(surroundings, HIVEMESH_WORKERS__FOLDERS='["a", "b"]'))
    assert loaded.settings.workers.folders == ("a", "b")


def test_broken_json_in_a_variable_is_refused(surroundings: Surroundings) -> None:
    detail = message(with_environment(surroundings, HIVEMESH_WORKERS__FOLDERS='["a"'))
    assert "workers.folders" in detail


def test_a_top_level_setting_needs_no_double_underscore(surroundings: Surroundings) -> None:
    loaded = load(with_environment(surroundings, HIVEMESH_MODE="production"))
    assert loaded.settings.mode == "production"


def test_a_value_may_refer_to_a_variable_or_a_file(surroundings: Surroundings) -> None:
    write(surroundings.working_folder / "host", "127.0.0.9\n")
    write(
        surroundings.working_folder / "hivemesh.yaml",
        'api: {host: "${file:host}", port: "${env:PORT}"}',
    )
    settings = load(with_environment(surroundings, PORT="77")).settings
    assert (settings.api.host, settings.api.port) == ("127.0.0.9", 77)


def test_what_a_reference_yields_is_not_expanded_again(surroundings: Surroundings) -> None:
    write(surroundings.working_folder / "hivemesh.yaml", 'api: {host: "${env:A}"}')
    settings = load(with_environment(surroundings, A="${env:B}", B="x")).settings
    assert settings.api.host == "${env:B}"


@pytest.mark.parametrize("reference", ["${env:NOT_SET}", "${file:/does/not/exist}"])
def test_a_reference_to_nothing_is_refused(surroundings: Surroundings, reference: str) -> None:
    write(surroundings.working_folder / "hivemesh.yaml", f'api: {{host: "{reference}"}}')
    assert "api" in message(surroundings)


@pytest.mark.parametrize(
    ("mode", "svid", "issuer", "accepted"),
    [
        ("local", 10, 60, True),
        ("local", 9, 60, False),
        ("production", 10, 60, False),
        ("production", 300, 600, True),
        ("production", 86_401, 604_800, False),
        ("local", 60, 100, False),
    ],
)
def test_lifetimes_are_bounded_by_the_mode(
    surroundings: Surroundings, mode: str, svid: int, issuer: int, *, accepted: bool
) -> None:
    flags = {"mode": mode, "trust.svid_lifetime_s": svid, "trust.issuer_lifetime_s": issuer}
    if accepted:
        assert load(surroundings, flags).settings.trust.svid_lifetime_s == svid
    else:
        assert "lifetime" in message(
            surroundings, **{k.replace(".", "__"): v for k, v in flags.items()}
        )


def test_state_lives_in_the_project(surroundings: Surroundings) -> None:
    write(surroundings.working_folder / "hivemesh.yaml", "")
    below = surroundings.working_folder / "a" / "b"
    below.mkdir(parents=True)
    inside = Surroundings(environment={}, working_folder=below, home=surroundings.home)
    assert inside.state_folder() == surroundings.working_folder / ".hivemesh"


def test_state_lives_in_the_xdg_folder_outside_a_project(surroundings: Surroundings) -> None:
    expected = surroundings.home / ".local" / "state" / "hivemesh"
    assert load(surroundings).state_folder == expected


def test_a_relative_xdg_folder_is_ignored(surroundings: Surroundings) -> None:
    odd = with_environment(surroundings, XDG_STATE_HOME="relative")
    assert load(odd).state_folder == surroundings.home / ".local" / "state" / "hivemesh"


def test_the_state_folder_can_be_set(surroundings: Surroundings, tmp_path: Path) -> None:
    loaded = load(surroundings, {"state.folder": str(tmp_path / "elsewhere")})
    assert loaded.state_folder == tmp_path / "elsewhere"


def row(loaded: Loaded, key: str) -> tuple[object, str]:
    return next((value, origin) for name, value, origin in loaded.rows() if name == key)


def test_every_leaf_is_shown_with_its_origin(surroundings: Surroundings) -> None:
    loaded = load(surroundings, {"workers.instances": {"a": 1}})
    assert row(loaded, "workers.instances") == ({"a": 1}, "flag workers.instances")
    assert row(loaded, "mode") == ("local", "default")
    assert row(loaded, "state.folder")[0] == str(loaded.state_folder)


def test_the_schema_line_of_editors_is_allowed(surroundings: Surroundings) -> None:
    write(surroundings.user_file, "$schema: https://example.invalid/settings.json\nmode: local")
    assert load(surroundings).settings.mode == "local"


def test_outside_any_project_the_checkout_that_is_installed_has_the_workers(tmp_path):
    anywhere = {"environment": {}, "working_folder": tmp_path, "home": tmp_path}
    loaded = load(Surroundings(**anywhere, installed_from=tmp_path / "checkout"))
    assert loaded.project == tmp_path / "checkout"
    assert loaded.state_folder == tmp_path / ".local" / "state" / "hivemesh"
    assert load(Surroundings(**anywhere)).project is None


WRONG = """
api: {port: many, prot: 7}
state: {folder: data}
nonsense: 1
workers: {folders: [w]}
"""


def test_everything_that_is_wrong_is_told_at_once(surroundings: Surroundings) -> None:
    write(surroundings.working_folder / "hivemesh.yaml", WRONG)
    sources = with_environment(surroundings, HIVEMESH_EXECUTION__NOPE="1")
    with pytest.raises(ConfigurationError) as caught:
        load(sources)
    assert {one.pointer for one in caught.value.errors} == {
        "/api/port",
        "/api/prot",
        "/nonsense",
        "/execution/nope",
    }


def test_what_is_valid_is_shown_beside_what_is_wrong(surroundings: Surroundings) -> None:
    write(surroundings.working_folder / "hivemesh.yaml", WRONG)
    loaded, wrong = load_valid(surroundings)
    assert wrong is not None
    assert (loaded.settings.api.port, loaded.origin("api.port")) == (8443, "default")
    assert loaded.settings.workers.folders == ("w",)
    assert loaded.origin("workers.folders").endswith("hivemesh.yaml")


@pytest.mark.parametrize("text", [WRONG, "state: {folder: data}\nmode: 7"])
def test_the_state_folder_is_found_whatever_else_is_wrong(
    surroundings: Surroundings, text: str
) -> None:
    write(surroundings.working_folder / "hivemesh.yaml", text)
    assert state_folder_of(surroundings) == surroundings.working_folder / "data"
    write(surroundings.working_folder / "hivemesh.yaml", "api: [")
    assert state_folder_of(surroundings) == surroundings.working_folder / ".hivemesh"
    sources = with_environment(surroundings, HIVEMESH_STATE__FOLDER="/s", HIVEMESH_API__PORT="x")
    assert state_folder_of(sources) == Path("/s")
    write(surroundings.working_folder / "hivemesh.yaml", "state: {folder: [1]}")
    with pytest.raises(ConfigurationError):
        state_folder_of(surroundings)
