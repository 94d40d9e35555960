from pathlib import Path

import pytest
from hivemesh_platform.supervisor.indexes import Indexes, read


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "prefix"


def configured(prefix: Path, text: str, **environment: str) -> Indexes:
    prefix.mkdir(exist_ok=True)
    (prefix / "pip.conf").write_text(text)
    return read({**environment, "XDG_CONFIG_HOME": str(prefix)}, prefix / "home", prefix)


def test_the_files_of_pip_are_read(prefix: Path) -> None:
    found = configured(
        prefix,
        "[global]\nindex-url = https://one.invalid/simple\n"
        "extra-index-url =\n  https://two.invalid/simple\n  https://three.invalid/simple\n"
        "find-links = /wheels\ncert = /ca.pem\n",
    )
    assert found.index_url == "https://one.invalid/simple"
    assert found.extra_index_urls == ("https://two.invalid/simple", "https://three.invalid/simple")
    assert found.find_links == ("/wheels",)


def test_the_install_section_wins_over_the_global_one(prefix: Path) -> None:
    found = configured(
        prefix,
        "[install]\nindex-url = https://b.invalid\n[global]\nindex-url = https://a.invalid\n",
    )
    assert found.index_url == "https://b.invalid"


def test_a_variable_wins_over_the_files(prefix: Path) -> None:
    found = configured(
        prefix, "[global]\nindex-url = https://a.invalid\n", PIP_INDEX_URL="https://c.invalid"
    )
    assert found.index_url == "https://c.invalid"


def test_a_broken_file_is_left_out(prefix: Path) -> None:
    assert configured(prefix, "no section", PIP_CERT="/ca.pem").cert == "/ca.pem"


def test_uv_gets_all_of_it_by_variables() -> None:
    indexes = Indexes(
        index_url="https://a.invalid",
        extra_index_urls=("https://b.invalid", "https://c.invalid"),
        find_links=("/one", "/two"),
        cert="/ca.pem",
    )
    assert indexes.uv_variables() == {
        "UV_DEFAULT_INDEX": "https://a.invalid",
        "UV_INDEX": "https://b.invalid https://c.invalid",
        "UV_FIND_LINKS": "/one,/two",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_nothing_configured_means_no_variables() -> None:
    assert Indexes().uv_variables() == {}


def test_no_index_is_passed_on() -> None:
    assert Indexes(no_index=True).uv_variables() == {"UV_NO_INDEX": "1"}
