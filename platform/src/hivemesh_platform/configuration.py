"""Reads the settings: flag > environment > ./hivemesh.yaml > user file > system file > default.

Keeps where each value came from, so that `config show --origin` can say it.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hivemesh_sdk.contracts.problems import FieldProblem
from hivemesh_sdk.errors import ConfigurationError, HivemeshError
from pydantic import BaseModel, JsonValue, SecretStr, ValidationError

from hivemesh_platform.settings import Settings

PREFIX = "HIVEMESH_"
FILE_NAME = "hivemesh.yaml"
DEFAULT_ORIGIN = "default"
MAX_VALUE_BYTES = 64 * 1024
_REFERENCE = re.compile(r"\$\{(env|file):([^}]*)\}")

Key = tuple[str, ...]
_STATE_FOLDER: Key = ("state", "folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the process was started in; injected, so that tests do not read the machine's."""

    environment: Mapping[str, str]
    working_folder: Path
    home: Path
    system_file: Path = Path("/etc/hivemesh") / FILE_NAME
    installed_from: Path | None = None  # the checkout that this package runs from

    @classmethod
    def of_process(cls) -> "Surroundings":
        """Those of this process."""
        source = Path(__file__).resolve().parents[3]
        return cls(
            environment=os.environ,
            working_folder=Path.cwd(),
            home=Path.home(),
            installed_from=source if _is_checkout(source) else None,
        )

    @property
    def user_file(self) -> Path:
        """The settings file of this user (XDG)."""
        return self._xdg("XDG_CONFIG_HOME", ".config") / "hivemesh" / FILE_NAME

    @property
    def project(self) -> Path | None:
        """The checkout or project around the working folder: the first with our marks, upwards."""
        for folder in (self.working_folder, *self.working_folder.parents):
            if (folder / FILE_NAME).is_file() or _is_checkout(folder):
                return folder
        return None

    def state_folder(self) -> Path:
        """Where state lives unless a setting says otherwise."""
        if self.project is not None:
            return self.project / ".hivemesh"
        return self._xdg("XDG_STATE_HOME", ".local/state") / "hivemesh"

    def _xdg(self, variable: str, default: str) -> Path:
        value = self.environment.get(variable, "")
        # The XDG specification: a relative path is invalid and has to be ignored.
        return Path(value) if value.startswith("/") else self.home / default


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, where each value came from, and the folders that follow from them."""

    settings: Settings
    origins: Mapping[str, str]  # dotted key -> origin; keys that are absent are defaults
    state_folder: Path
    project: Path | None
    environment: Mapping[str, str] = field(repr=False)

    @property
    def shared_folder(self) -> Path:
        """Where everything is kept that all replicas use."""
        shared = self.settings.replica.shared_folder
        return self.state_folder if shared is None else shared.expanduser().absolute()

    @property
    def worker_folders(self) -> list[Path]:
        """The configured folders of workers, relative ones below the checkout or project."""
        base = self.project or self.state_folder
        return [base / Path(folder).expanduser() for folder in self.settings.workers.folders]

    @property
    def homes(self) -> Path | None:
        """Where each replica has a folder that the others read; None where there is one replica."""
        if self.settings.replica.shared_folder is None:
            return None
        return self.shared_folder / "replicas"

    def origin(self, key: str) -> str:
        """Where the value of a dotted key came from."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return DEFAULT_ORIGIN

    def rows(self) -> list[tuple[str, JsonValue, str]]:
        """Every leaf of the tree: dotted key, value, origin."""
        values = self.settings.model_dump(mode="json")
        values["state"]["folder"] = str(self.state_folder)
        return [(key, value, self.origin(key)) for key, value in _leaves(Settings, values, "")]


def load(surroundings: Surroundings, flags: Mapping[str, JsonValue] | None = None) -> Loaded:
    """Read all sources and validate the result. `flags` maps dotted keys to values.

    Raises:
        ConfigurationError: a key is unknown, a value is invalid, or a file cannot be read; it has
            everything that is wrong.
    """
    loaded, wrong = load_valid(surroundings, flags)
    if wrong is not None:
        raise wrong
    return loaded


def load_valid(
    surroundings: Surroundings, flags: Mapping[str, JsonValue] | None = None
) -> tuple[Loaded, ConfigurationError | None]:
    """Read as `load` does what is valid, and answer with it and with what is wrong."""
    merged = _Merged(surroundings)
    for path in _files(surroundings):
        merged.add_file(path)
    for name, text in sorted(surroundings.environment.items()):
        merged.add_variable(name, text)
    for dotted, value in (flags or {}).items():
        merged.add(tuple(dotted.split(".")), value, f"flag {dotted}")
    settings, wrong = merged.settings()
    loaded = Loaded(
        settings=settings,
        origins=merged.origins,
        state_folder=_state_folder(settings, surroundings),
        project=surroundings.project or surroundings.installed_from,
        environment=surroundings.environment,
    )
    return loaded, _error(wrong)


def from_text(dotted: str, text: str) -> JsonValue:
    """A value as `--set key=value` gives it; raises as `load`."""
    return _from_text(tuple(dotted.split(".")), text)


def state_folder_of(surroundings: Surroundings) -> Path:
    """The state folder that the settings name, whatever else is wrong with them.

    A platform that runs must be found, looked at and stopped while its settings are being edited;
    a file that cannot be read names no folder.

    Raises:
        ConfigurationError: what is given as the folder is no path.
    """
    merged = _Merged(surroundings)
    for path in _files(surroundings):
        with suppress(ConfigurationError, OSError):
            section = _read_file(path).get("state")
            if isinstance(section, dict) and "folder" in section:
                merged.add(_STATE_FOLDER, section["folder"], str(path))
    variable = f"{PREFIX}STATE__FOLDER"
    if variable in surroundings.environment:
        merged.add(_STATE_FOLDER, surroundings.environment[variable], f"environment {variable}")
    settings, wrong = merged.settings()
    error = _error(wrong)
    if error is not None:
        raise error
    return _state_folder(settings, surroundings)


class _Merged:
    """The raw tree while sources are laid over each other, lowest first, and what is wrong there."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.origins: dict[str, str] = {}
        self._tree: dict[str, JsonValue] = {}
        self._wrong: list[FieldProblem] = []
        self._surroundings = surroundings

    def add_file(self, path: Path) -> None:
        with self._noting():
            self.add_tree(_read_file(path), str(path))

    def add_variable(self, name: str, text: str) -> None:
        with self._noting():
            key = _environment_key(name)
            if key is not None:
                self.add(key, _from_text(key, text), f"environment {name}")

    def add_tree(self, tree: Mapping[str, JsonValue], origin: str, prefix: Key = ()) -> None:
        for key, value in tree.items():
            path = (*prefix, str(key))
            if isinstance(value, dict) and _is_branch(path):
                self.add_tree(value, origin, path)
            else:
                self.add(path, value, origin)

    def add(self, path: Key, value: JsonValue, origin: str) -> None:
        with self._noting():
            self._put(path, value, origin)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep what is wrong for the end, where all of it is told."""
        try:
            yield
        except ConfigurationError as error:
            self._wrong += error.errors or [FieldProblem(pointer="", message=error.detail)]

    def _put(self, path: Key, value: JsonValue, origin: str) -> None:
        _check_key(path, origin)
        node = self._tree
        for part in path[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise _invalid(path, f"{'.'.join(path)} is set twice, from {origin}")
            node = child
        node[path[-1]] = self._resolved(value, path, origin)
        self.origins[".".join(path)] = origin

    def settings(self) -> tuple[Settings, list[FieldProblem]]:
        """The settings without those that are wrong, and what is wrong."""
        wrong = self._wrong
        while True:
            try:
                return Settings.model_validate(self._tree), wrong
            except ValidationError as error:
                found = error.errors()
            if wrong is self._wrong:  # what the first look finds; later ones see what is left
                told = [self._field_problem(item["loc"], item["msg"]) for item in found]
                wrong = [*wrong, *told]
            if not any(self._drop(item["loc"]) for item in found):
                self._tree.clear()  # a check of several sections: their values are of no use
                self.origins.clear()

    def _drop(self, location: tuple[int | str, ...]) -> bool:
        """Take a value out, so that its default stands; False where there is none to take."""
        node, parts = self._tree, [str(part) for part in location]
        for depth, part in enumerate(parts):
            child = node.get(part)
            within = isinstance(child, dict) and _section_of(tuple(parts[: depth + 1])) is not None
            if not within or depth == len(parts) - 1:
                dropped = f"{'.'.join(parts[: depth + 1])}."
                self.origins = {
                    key: origin
                    for key, origin in self.origins.items()
                    if not f"{key}.".startswith(dropped)
                }
                return node.pop(part, None) is not None
            node = child  # type: ignore[assignment]  # a dict, as `within` has it
        return False

    def _field_problem(self, location: tuple[int | str, ...], message: str) -> FieldProblem:
        key = ".".join(str(part) for part in location)
        text = message.removeprefix("Value error, ")
        origin = next(
            (self.origins[one] for one in _ancestors(key) if one in self.origins), DEFAULT_ORIGIN
        )
        return FieldProblem(
            pointer="/" + key.replace(".", "/") if key else "",
            message=f"{key} ({origin}): {text}" if key else text,
        )

    def _resolved(self, value: JsonValue, path: Key, origin: str) -> JsonValue:
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: self._reference(match, path, origin), value)
        if isinstance(value, list):
            return [self._resolved(item, path, origin) for item in value]
        if isinstance(value, dict):
            return {key: self._resolved(item, path, origin) for key, item in value.items()}
        return value

    def _reference(self, match: re.Match[str], path: Key, origin: str) -> str:
        kind, name, place = match[1], match[2], f"{'.'.join(path)} ({origin})"
        if kind == "env":
            if name not in self._surroundings.environment:
                raise _invalid(path, f"{place}: environment variable {name!r} is not set")
            return self._surroundings.environment[name]
        file = self._surroundings.working_folder / Path(name).expanduser()
        try:
            with file.open(encoding="utf-8") as opened:
                return opened.read(MAX_VALUE_BYTES).rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise _invalid(path, f"{place}: file {name!r} cannot be read") from error


def _is_checkout(folder: Path) -> bool:
    return (folder / "plugin-sdk").is_dir() and (folder / "workers").is_dir()


def _files(surroundings: Surroundings) -> list[Path]:
    """The settings files that exist, the lowest precedence first."""
    candidates = [surroundings.system_file, surroundings.user_file]
    if surroundings.project is not None:
        candidates.append(surroundings.project / FILE_NAME)
    return [path for path in candidates if path.is_file()]


def _read_file(path: Path) -> Mapping[str, JsonValue]:
    from hivemesh_sdk.safeio.documents import read_text  # noqa: PLC0415 - only where a file exists
    from hivemesh_sdk.safeio.yaml import parse_yaml  # noqa: PLC0415 - as above

    try:
        document = parse_yaml(read_text(path), name=str(path))
    except HivemeshError as error:
        raise ConfigurationError(
            error.detail, slug="configuration-invalid", errors=error.errors
        ) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        detail = f"{str(path)!r} must be a mapping of sections"
        raise ConfigurationError(detail, slug="configuration-invalid")
    return {key: value for key, value in document.items() if key != "$schema"}


def _environment_key(name: str) -> Key | None:
    """The key that a variable sets, or None where it is no setting.

    Variables without `__` have other meanings (HIVEMESH_TEST_DATA), unless one underscore more
    would make them a setting: then it is a slip that must not pass in silence.
    """
    if not name.startswith(PREFIX):
        return None
    rest = name.removeprefix(PREFIX).lower()
    parts = tuple(rest.split("__"))
    if len(parts) > 1 or rest in _leaf_names(Settings):
        return _with_dashes(parts)
    if rest in Settings.model_fields:
        keys = sorted(Settings.model_fields[rest].annotation.model_fields)  # type: ignore[union-attr]  # a section
        meant = ", ".join(f"{name}__{key.upper()}" for key in keys)
        raise _invalid((rest,), f"{name} sets nothing; known are {meant}")
    section, _, key = rest.partition("_")
    if _field(Settings, (section, key)) is not None:
        meant = f"{PREFIX}{section.upper()}__{key.upper()}"
        raise _invalid((section, key), f"{name} sets nothing; did you mean {meant}?")
    return None


def _with_dashes(parts: Key) -> Key:
    """Worker names carry dashes, variables cannot: below a mapping `_` stands for `-`."""
    if len(parts) > 2 and _field(Settings, parts[:2]) is not None:
        return (*parts[:2], *(part.replace("_", "-") for part in parts[2:]))
    return parts


def _from_text(path: Key, text: str) -> JsonValue:
    """A variable's value: JSON where it is a list or mapping, else text for pydantic to convert."""
    if text[:1] not in "[{" or not text:
        return text
    from hivemesh_sdk.safeio.json import parse_json  # noqa: PLC0415 - rarely needed by a command

    try:
        return parse_json(text, name=".".join(path))
    except HivemeshError as error:
        raise _invalid(path, error.detail) from error


def _check_key(path: Key, origin: str) -> None:
    model: type[BaseModel] = Settings
    for depth, part in enumerate(path):
        if part not in model.model_fields:
            raise _unknown(path[: depth + 1], sorted(model.model_fields), origin)
        child = _section(model, part)
        if child is None:
            return
        model = child
    if _section_of(path) is not None:
        raise _invalid(path, f"{'.'.join(path)} is a section, not a value ({origin})")


def _unknown(path: Key, known: list[str], origin: str) -> ConfigurationError:
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    prefix = "".join(f"{part}." for part in path[:-1])
    hint = f"did you mean {prefix + close[0]!r}?" if close else f"known are {', '.join(known)}"
    return _invalid(path, f"unknown key {'.'.join(path)!r} ({origin}); {hint}")


def _error(wrong: list[FieldProblem]) -> ConfigurationError | None:
    if not wrong:
        return None
    detail = "; ".join(one.message for one in wrong)
    return ConfigurationError(detail, slug="configuration-invalid", errors=wrong)


def _invalid(path: Key, message: str) -> ConfigurationError:
    problem = FieldProblem(pointer="/" + "/".join(path), message=message)
    return ConfigurationError(message, slug="configuration-invalid", errors=[problem])


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = model.model_fields[name].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _section_of(path: Key) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Settings
    for part in path:
        if model is None or part not in model.model_fields:
            return None
        model = _section(model, part)
    return model


def _is_branch(path: Key) -> bool:
    """Whether a mapping at this place is laid over key by key: sections, and unknown keys too."""
    field = _field(Settings, path)
    return field is None or _section_of(path) is not None or field == "mapping"


def _field(model: type[BaseModel], path: Key) -> str | None:
    """What stands at a place of the tree: "section", "mapping", "value", or None for nothing."""
    current: type[BaseModel] | None = model
    kind: str | None = None
    for part in path:
        if current is None or part not in current.model_fields:
            return None
        annotation = current.model_fields[part].annotation
        current = _section(current, part)
        is_mapping = getattr(annotation, "__origin__", None) is dict
        kind = "section" if current else "mapping" if is_mapping else "value"
    return kind


def _leaf_names(model: type[BaseModel]) -> set[str]:
    return {name for name in model.model_fields if _section(model, name) is None}


def _leaves(
    model: type[BaseModel], values: dict[str, JsonValue], prefix: str
) -> list[tuple[str, JsonValue]]:
    leaves: list[tuple[str, JsonValue]] = []
    for name in model.model_fields:
        value = values[name]
        section = _section(model, name)
        if section is not None and isinstance(value, dict):
            leaves += _leaves(section, value, f"{prefix}{name}.")
        else:
            secret = model.model_fields[name].annotation is SecretStr and value
            leaves.append((prefix + name, "***" if secret else value))
    return leaves


def _ancestors(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _state_folder(settings: Settings, surroundings: Surroundings) -> Path:
    folder = settings.state.folder
    if folder is None:
        return surroundings.state_folder()
    return (surroundings.working_folder / folder.expanduser()).resolve()
