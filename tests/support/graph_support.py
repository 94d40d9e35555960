"""Graphs of echoes and failures over fake workers, for tests of runs."""

from execution_support import CAPABILITIES, core, worker
from fake_workers import FakeCatalogue, capability, failing, mapper
from hivemesh_sdk.contracts.problems import problem

CATALOGUE = FakeCatalogue(
    *CAPABILITIES, capability("test.fail@1", "call"), capability("test.tag@1", "map")
)
FATAL = problem("step-fatal", "broken")
ECHO, FAIL = {"use": "test.echo@1"}, {"use": "test.fail@1"}
GRAPH = {
    "apiVersion": "hivemesh/v1",
    "kind": "Pipeline",
    "metadata": {"name": "graph", "version": 1},
    "parameters": {"mode": {"default": "fast"}, "n": {"type": "integer", "default": 3}},
}


def graph(outputs=None, **steps):
    return {**GRAPH, "steps": steps, "outputs": outputs or {}}


def told(text, **step):
    return {**ECHO, "with": {"text": text}, **step}


def workers(**behaviours):
    found = {
        "test.fail@1": failing(FATAL),
        "test.tag@1": mapper(lambda record: {**record, "tag": True}),
    }
    return worker(behaviours={**found, **behaviours})


def open_core(folder, *given, **settings):
    return core(folder, *(given or (workers(),)), catalogue=CATALOGUE, **settings)


def states(run):
    return {node.name: node.state.value for node in run.nodes}


def reasons(run):
    return {node.name: node.reason for node in run.nodes if node.reason}


def order(platform, run):
    return [key.split(".")[1] for _, key, _ in platform.fleet.puts if key.startswith(run.id)]
