"""Load is a fraction of the instance's own limits, the container's where it is narrower."""

import time

import psutil
import pytest
from hivemesh_sdk.contracts.manifest import Resources
from hivemesh_sdk.lifecycle.load import Limits, LoadMeter, limits
from hivemesh_sdk.testing.clock import ManualClock

MEBIBYTE = 1024 * 1024
RESOURCES = Resources(memory_mb=256, cpu=1.5)


def cgroup(folder, **files: str):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def test_without_a_container_the_manifest_counts(tmp_path):
    assert limits(RESOURCES, cgroups=tmp_path, cpus=8) == Limits(1.5, 256 * MEBIBYTE)


def test_a_machine_with_less_than_the_manifest_counts(tmp_path):
    assert limits(RESOURCES, cgroups=tmp_path, cpus=1).cpus == 1.0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu_DOT_max": "50000 100000", "memory_DOT_max": str(64 * MEBIBYTE)}, (0.5, 64)),
        ({"cpu_DOT_max": "max 100000", "memory_DOT_max": "max"}, (1.5, 256)),
        ({"cpu_DOT_max": "400000 100000", "memory_DOT_max": str(4096 * MEBIBYTE)}, (1.5, 256)),
        (
            {
                "cpu__cpu_DOT_cfs_quota_us": "25000",
                "cpu__cpu_DOT_cfs_period_us": "100000",
                "memory__memory_DOT_limit_in_bytes": str(32 * MEBIBYTE),
            },
            (0.25, 32),
        ),
        (
            {
                "cpu__cpu_DOT_cfs_quota_us": "-1",
                "cpu__cpu_DOT_cfs_period_us": "100000",
                "memory__memory_DOT_limit_in_bytes": "9223372036854771712",
            },
            (1.5, 256),
        ),
    ],
)
def test_the_narrower_of_container_and_manifest_counts(tmp_path, files, expected):
    found = limits(RESOURCES, cgroups=cgroup(tmp_path, **files), cpus=8)
    assert (found.cpus, found.memory_bytes) == (expected[0], expected[1] * MEBIBYTE)


def test_fractions_stay_within_one():
    clock = ManualClock()
    meter = LoadMeter(Limits(cpus=0.0001, memory_bytes=1), clock)
    clock.advance(1.0)
    load = meter.measure()
    assert (load.cpu, load.memory) == (1.0, 1.0)
    assert load.rss_bytes > MEBIBYTE


def test_an_idle_interval_counts_as_idle():
    clock = ManualClock()
    meter = LoadMeter(Limits(cpus=1.0, memory_bytes=1 << 40), clock)
    meter.measure()
    clock.advance(3600.0)
    assert meter.measure().cpu < 0.01


def test_figures_are_those_of_the_operating_system():
    clock = ManualClock()
    meter = LoadMeter(Limits(cpus=2.0, memory_bytes=1 << 32), clock)
    meter.measure()
    before = time.process_time()
    while (spent := time.process_time() - before) < 0.5:
        pass
    clock.advance(1.0)
    load = meter.measure()
    assert load.cpu == pytest.approx(spent / 2, rel=0.1)
    assert load.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert load.memory == pytest.approx(load.rss_bytes / (1 << 32))
