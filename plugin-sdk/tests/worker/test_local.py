"""A capability without platform, network and executor."""

import json

import pytest
from hivemesh_sdk import Artifact, ConfigurationError, Context, Record, Rejected, Worker
from hivemesh_sdk.errors import NotFoundError
from hivemesh_sdk.worker.executor import load_worker
from hivemesh_sdk.worker.local import run_local
from worker_harness import SAMPLES


class FileOptions(Record):
    archive: Artifact


worker = Worker()


@worker.call("a.size@1")
def size(options: FileOptions, context: Context) -> dict[str, int]:
    with context.artifacts.open(options.archive) as reader:
        return {"size": len(reader.read())}


@worker.call("a.names@1")
def names(options: FileOptions, context: Context) -> list[str]:
    return list(context.artifacts.tree(options.archive))


@worker.call("a.copy@1")
def copy(options: FileOptions, context: Context) -> Artifact:
    with context.artifacts.open(options.archive, 2) as reader:
        return context.artifacts.put(reader.read(), name="copy")


@pytest.fixture(scope="module")
def samples():
    return load_worker("sample_worker:worker", [str(SAMPLES)])


def test_a_source_yields_its_records(samples):
    lines = list(run_local(samples, "sample.count@1", {"size": 1200}))
    assert [json.loads(line)["id"] for line in lines] == list(range(1200))


def test_an_iteration_that_stops_early_stops_the_source(samples):
    answers = run_local(samples, "sample.count@1", {"size": 10**9})
    assert next(answers)
    answers.close()


def test_a_map_answers_and_rejects(samples):
    lines = [b'{"id":1,"text":"a"}', b'{"id":2}', b"broken"]
    answers = list(run_local(samples, "sample.upper@1", {}, lines))
    assert [type(answer) for answer in answers] == [Rejected, Rejected, bytes]


def test_a_reducer_answers_its_result(samples):
    lines = [b'{"id":%d}' % number for number in range(1001)]
    assert list(run_local(samples, "sample.total@1", {"width": 2}, lines)) == [b'{"total":2002}']


def test_an_async_call_answers(samples):
    assert list(run_local(samples, "sample.echo@1", {}, [b'{"a":1}'])) == [b'{"a":1}']


def test_a_path_stands_for_an_artifact(tmp_path):
    (tmp_path / "mail").write_bytes(b"12345")
    options = {"archive": str(tmp_path / "mail")}
    assert list(run_local(worker, "a.size@1", options)) == [b'{"size":5}']


def test_a_folder_stands_for_a_tree(tmp_path):
    for name in ("b", "a", "c/d"):
        (tmp_path / "mails" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mails" / name).write_bytes(name.encode())
    options = {"archive": str(tmp_path / "mails")}
    assert list(run_local(worker, "a.names@1", options)) == [b'["a","b","c/d"]']


def test_what_is_stored_lies_in_the_folder(tmp_path):
    (tmp_path / "mail").write_bytes(b"12345")
    options = {"archive": str(tmp_path / "mail")}
    (line,) = run_local(worker, "a.copy@1", options, folder=tmp_path / "out")
    assert (tmp_path / "out" / json.loads(line)["sha256"]).read_bytes() == b"345"


def test_a_missing_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no file"):
        list(run_local(worker, "a.size@1", {"archive": str(tmp_path / "nothing")}))


def test_an_unknown_capability_lists_the_known_ones():
    with pytest.raises(NotFoundError, match=r"a\.size@1"):
        list(run_local(worker, "a.other@1", {}))


def test_what_the_code_raises_is_raised(samples):
    with pytest.raises(ValueError, match="no"):
        list(run_local(samples, "sample.fail@1", {}, [b'{"kind":"x","message":"no"}']))
