"""Where packages come from: what pip is configured to use, in the form that uv takes.

uv does not read pip's settings, so an index or certificate that works for pip has to be passed on.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SECTIONS = ("global", "install")  # the later one wins, as for pip


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    """Pip's settings that matter for finding packages."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    cert: str = ""
    no_index: bool = False

    def uv_variables(self) -> dict[str, str]:
        """The same for uv. Variables, not arguments: an index may carry a password."""
        variables = {
            "UV_DEFAULT_INDEX": self.index_url,
            "UV_INDEX": " ".join(self.extra_index_urls),
            "UV_FIND_LINKS": ",".join(self.find_links),
            "SSL_CERT_FILE": self.cert,
            "UV_NO_INDEX": "1" if self.no_index else "",
        }
        if self.extra_index_urls:
            # pip takes the best version over all indexes; uv would stop at the first that has any
            variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        return {name: value for name, value in variables.items() if value}


def read(environment: Mapping[str, str], home: Path, prefix: Path) -> Indexes:
    """Read pip's configuration files and variables; a variable wins over every file."""
    values: dict[str, str] = {}
    for path in _files(environment, home, prefix):
        values.update(_file(path))
    for key in ("index-url", "extra-index-url", "find-links", "cert", "no-index"):
        name = f"PIP_{key.upper().replace('-', '_')}"
        if environment.get(name):
            values[key] = environment[name]
    return Indexes(
        index_url=values.get("index-url", "").strip(),
        extra_index_urls=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        cert=values.get("cert", "").strip(),
        no_index=values.get("no-index", "").strip().lower() in {"1", "true", "yes", "on"},
    )


def _files(environment: Mapping[str, str], home: Path, prefix: Path) -> list[Path]:
    """Pip's own order: system, user (old and new place), environment, PIP_CONFIG_FILE."""
    configured = environment.get("PIP_CONFIG_FILE", "")
    if configured == "/dev/null":
        return []
    config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
        home / ".pip" / "pip.conf",
        config_home / "pip" / "pip.conf",
        prefix / "pip.conf",
    ]
    return [*files, Path(configured)] if configured else files


def _file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    values: dict[str, str] = {}
    for section in _SECTIONS:
        if parser.has_section(section):
            values.update(parser.items(section))
    return values
