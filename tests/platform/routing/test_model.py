import pytest
from hivemesh_platform.routing.model import (
    Features,
    Load,
    Weights,
    load_parts,
    load_score,
    requirements,
    unmet,
    why_none,
)
from hivemesh_sdk.contracts.artifacts import DataClass


@pytest.mark.parametrize(
    ("cpu", "memory", "active", "score"),
    [(0.5, 0.4, 2, 0.38), (0.2, 0.2, 10, 0.44), (0.0, 0.0, 0, 0.0), (1.0, 1.0, 10, 1.0)],
)
def test_the_load_score_weighs_cpu_memory_and_tens_of_active_steps(
    cpu: float, memory: float, active: int, score: float
) -> None:
    assert load_score(Load(cpu, memory, active), Weights()) == pytest.approx(score)


def test_the_parts_add_up_to_the_score() -> None:
    load = Load(0.7, 0.1, 3)
    assert sum(load_parts(load, Weights()).values()) == pytest.approx(load_score(load, Weights()))


def test_the_weights_are_a_setting() -> None:
    assert load_score(Load(0.5, 0.5, 10), Weights(cpu=1, memory=0, active=0)) == 0.5


def features(version: str = "1.2.0", **labels: str) -> Features:
    return Features(capabilities=frozenset({"a.do@1"}), labels=labels, version=version)


@pytest.mark.parametrize(
    ("one", "wanted", "expected"),
    [
        (features(), requirements("a.do@1"), ""),
        (features(), requirements("b.do@1"), "b.do@1"),
        (features(gpu="true"), requirements("a.do@1", {"gpu": "true"}), ""),
        (features(gpu="false"), requirements("a.do@1", {"gpu": "true"}), "gpu=true"),
        (features(), requirements("a.do@1", {"gpu": "true"}), "gpu=true"),
        (features("1.2.0"), requirements("a.do@1", version=">=1,<2"), ""),
        (features("2.0.0"), requirements("a.do@1", version=">=1,<2"), "version >=1,<2"),
    ],
)
def test_the_first_requirement_that_is_missed_is_named(
    one: Features, wanted: object, expected: str
) -> None:
    assert unmet(one, wanted) == expected


@pytest.mark.parametrize(
    ("instances", "labels", "expected"),
    [
        ([], {}, "no live instance serves a.do@1"),
        ([features()], {"gpu": "true"}, "no live instance satisfies gpu=true"),
        (
            [features(zone="b"), features(gpu="true")],
            {"gpu": "true", "zone": "a"},
            "no live instance satisfies gpu=true or zone=a",
        ),
    ],
)
def test_having_no_candidate_has_a_reason(
    instances: list[Features], labels: dict[str, str], expected: str
) -> None:
    assert why_none(instances, requirements("a.do@1", labels)) == expected


def test_requirements_do_not_depend_on_the_order_of_labels() -> None:
    one = requirements("a.do@1", {"a": "1", "b": "2"})
    assert one == requirements("a.do@1", {"b": "2", "a": "1"})


@pytest.mark.parametrize(
    ("data_class", "fits"),
    [("public", True), ("internal", True), ("personal", False), ("secret", False)],
)
def test_an_instance_is_given_nothing_above_its_clearance(data_class, fits):
    low = Features(
        capabilities=frozenset({"a.do@1"}),
        labels={},
        version="1.0.0",
        clearances={"a.do@1": DataClass.INTERNAL},
    )
    wanted = requirements("a.do@1", data_class=DataClass(data_class))
    assert (unmet(low, wanted) == "") is fits
    if not fits:
        assert f"data class {data_class}, which exceeds internal" in why_none([low], wanted)
