"""Archives of strangers: plain files come out, everything else is refused with a code."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from contextlib import suppress

import pytest
from hivemesh_sdk.safeio.archives import ArchiveUnsafeError, read_archive
from hivemesh_sdk.safeio.unpacking import (
    ArchiveDamagedError,
    ArchiveLimits,
    ArchiveTooLargeError,
)
from hypothesis import given
from hypothesis import strategies as st

REFUSED = (ArchiveUnsafeError, ArchiveDamagedError, ArchiveTooLargeError)


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    """A zip of (name, content) or (ZipInfo, content)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def tarred(*entries, mode="w"):
    """A tar of (name, content) or TarInfo."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1]))
    return file.getvalue()


def contents(data, **limits):
    """Path to content of every file."""
    found = {}
    for entry in read_archive(io.BytesIO(data), limits=ArchiveLimits(**limits)):
        found[entry.path] = io.BufferedReader(entry).read()
    return found


FILES = (("a.txt", b"one"), ("folder/b.txt", b"two" * 1000))
UNPACKED = {"a.txt": b"one", "folder/b.txt": b"two" * 1000}


@pytest.mark.parametrize(
    "data",
    [
        zipped(*FILES),
        zipped(*FILES, method=zipfile.ZIP_STORED),
        tarred(*FILES),
        tarred(*FILES, mode="w:gz"),
        tarred(*FILES, mode="w:bz2"),
        tarred(*FILES, mode="w:xz"),
    ],
)
def test_files_come_out_with_their_paths(data):
    assert contents(data) == UNPACKED


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_single_compressed_file_is_one_entry(pack):
    assert contents(pack(b"mail" * 100)) == {"data": b"mail" * 100}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_members_of_one_stream_are_joined(pack):
    assert contents(pack(b"one") + pack(b"two")) == {"data": b"onetwo"}


def test_folders_are_no_files():
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    assert contents(tarred(folder, ("folder/a", b"x"))) == {"folder/a": b"x"}
    assert contents(zipped(("folder/", b""), ("folder/a", b"x"))) == {"folder/a": b"x"}


def test_dot_slash_in_front_is_the_same_path():
    assert contents(tarred(("./a.txt", b"x"))) == {"a.txt": b"x"}


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "/etc/passwd",
        "a/../../b",
        "C:/a",
        "c:a",
        "a\\..\\b",
        "a//b",
        "a\nb",
        "nul",
        "x" * 300,
    ],
)
def test_path_that_leads_outside_is_refused(name):
    for data in (zipped((name, b"x")), tarred((name, b"x"))):
        with pytest.raises(ArchiveUnsafeError):
            contents(data)


def test_name_that_hides_its_end_behind_a_zero_byte_is_refused():
    data = zipped(("a.txtXexe", b"x")).replace(b"a.txtXexe", b"a.txt\0exe")
    with pytest.raises(REFUSED):
        contents(data)


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "A"), ("caf\u00e9", "cafe\u0301"), ("stra\u00dfe", "STRASSE")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_are_one_on_another_system_are_refused(names):
    entries = [(name, b"x") for name in names]
    for data in (zipped(*entries), tarred(*entries)):
        with pytest.raises(ArchiveUnsafeError):
            contents(data)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_link_or_special_file_in_a_tar_is_refused(kind):
    info = tarfile.TarInfo("a")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveUnsafeError):
        contents(tarred(info))


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_link_or_special_file_in_a_zip_is_refused(mode):
    info = zipfile.ZipInfo("a")
    info.external_attr = mode << 16
    with pytest.raises(ArchiveUnsafeError):
        contents(zipped((info, b"/etc/passwd")))


def test_encrypted_zip_is_refused():
    data = bytearray(zipped(("a", b"x")))
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArchiveDamagedError, match="encrypted"):
        contents(bytes(data))


def test_method_that_is_not_read_is_refused():
    with pytest.raises(ArchiveDamagedError, match="method"):
        contents(zipped(("a", b"x"), method=zipfile.ZIP_LZMA))


@pytest.mark.parametrize("pack", [lambda data: zipped(("a", data)), gzip.compress, lzma.compress])
def test_bomb_ends_at_the_ratio(pack):
    with pytest.raises(ArchiveTooLargeError, match="100 times"):
        contents(pack(bytes(50_000_000)))


def test_archive_ends_at_its_bytes_whatever_its_headers_say():
    data = zipped(("a", bytes(range(256)) * 400), ("b", bytes(range(256)) * 400))
    with pytest.raises(ArchiveTooLargeError):
        contents(data, bytes=100_000)


def test_header_that_lies_about_the_size_hides_nothing():
    data = bytearray(zipped(("a", b"x" * 100_000)))
    place = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, place + 24, 10)
    with pytest.raises(REFUSED):
        contents(bytes(data), bytes=50_000)


def test_too_many_entries_are_refused():
    entries = [(f"f{number}", b"") for number in range(30)]
    for data in (zipped(*entries), tarred(*entries)):
        with pytest.raises(ArchiveTooLargeError, match="entries"):
            contents(data, entries=20)


def test_zip64_directory_cannot_hide_behind_the_small_one():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(70_000):  # more than the small record can count
            archive.writestr(f"f{number}", b"")
    with pytest.raises(ArchiveTooLargeError):
        contents(file.getvalue())
    data = bytearray(file.getvalue())
    place = data.rfind(b"PK\x05\x06")
    struct.pack_into("<HHL", data, place + 8, 1, 1, 60)
    with pytest.raises(ArchiveTooLargeError, match="zip64"):
        contents(bytes(data))


def test_header_of_a_tar_has_a_limit_of_its_own():
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 200_000}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(ArchiveTooLargeError, match="header"):
        contents(file.getvalue(), header_bytes=50_000)


def test_time_that_is_over_ends_it():
    with pytest.raises(ArchiveTooLargeError, match="longer"):
        contents(zipped(*FILES), seconds=-1)


def nested(levels):
    data = b"core"
    for _ in range(levels):
        data = zipped(("inner.zip", data), method=zipfile.ZIP_STORED)
    return data


def unpack_all(entries):
    for entry in entries:
        if entry.path.endswith(".zip"):
            yield from unpack_all(entry.archive())
        else:
            yield entry.path


def test_archives_inside_are_read_to_the_third_level_and_no_further():
    three = zipped(("one.zip", zipped(("two.zip", zipped(("a.txt", b"x"))))))
    assert list(unpack_all(read_archive(io.BytesIO(three)))) == ["a.txt"]
    with pytest.raises(ArchiveTooLargeError, match="deeper"):
        list(unpack_all(read_archive(io.BytesIO(nested(5)))))


def test_archives_inside_share_the_limits_of_the_outer_one():
    inner = zipped(*((f"f{number}", b"") for number in range(10)))
    data = zipped(("one.zip", inner), ("two.zip", inner))
    with pytest.raises(ArchiveTooLargeError, match="entries"):
        list(unpack_all(read_archive(io.BytesIO(data), limits=ArchiveLimits(entries=15))))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"]
)
def test_what_is_no_archive_is_refused(data):
    with pytest.raises(ArchiveDamagedError):
        contents(data)


@pytest.mark.parametrize(
    "data",
    [zipped(*FILES), tarred(*FILES, mode="w:gz"), gzip.compress(b"x" * 999)],
    ids=["zip", "tar.gz", "gz"],  # bytes of gzip hold the time: another process would not know them
)
def test_archive_that_is_cut_off_is_refused(data):
    with pytest.raises(ArchiveDamagedError):
        contents(data[: len(data) * 2 // 3])


SEEDS = (zipped(*FILES), tarred(*FILES), tarred(*FILES, mode="w:gz"), gzip.compress(b"x" * 99))


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
)
def test_damaged_archive_is_read_or_refused_and_nothing_else(seed, changes):
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    with suppress(*REFUSED):
        contents(bytes(data), bytes=1_000_000)
