"""How busy this instance is: CPU and memory as fractions of its own limits, executors included."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from hivemesh_sdk.clock import Clock
from hivemesh_sdk.contracts.manifest import Resources

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63


@dataclass(frozen=True, slots=True)
class Limits:
    """What the instance may use."""

    cpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What it uses now; fractions lie between 0 and 1."""

    cpu: float
    memory: float
    rss_bytes: int


def limits(resources: Resources, *, cgroups: Path = _CGROUPS, cpus: int | None = None) -> Limits:
    """The container's limits where there are any and they are narrower than the manifest's."""
    machine = float(cpus or os.cpu_count() or 1)
    cpu = min(resources.cpu, machine, _cgroup_cpus(cgroups) or machine)
    memory = resources.memory_mb * 1024 * 1024
    return Limits(cpu, min(memory, _cgroup_memory(cgroups) or memory))


class LoadMeter:
    """Measures between two calls of `measure`; the first one covers the process's life."""

    def __init__(self, own: Limits, clock: Clock) -> None:
        self._limits = own
        self._clock = clock
        self._process = psutil.Process()
        self._seconds = 0.0
        self._at = clock.monotonic()

    def measure(self) -> Load:
        """CPU since the last call and memory now."""
        seconds, rss = self._usage()
        now = self._clock.monotonic()
        elapsed = max(now - self._at, 1e-3)
        used = max(seconds - self._seconds, 0.0)
        self._seconds, self._at = seconds, now
        return Load(
            cpu=min(used / elapsed / self._limits.cpus, 1.0),
            memory=min(rss / self._limits.memory_bytes, 1.0),
            rss_bytes=rss,
        )

    def _usage(self) -> tuple[float, int]:
        own = self._process.cpu_times()
        seconds = own.user + own.system + own.children_user + own.children_system
        rss = self._process.memory_info().rss
        for child in _descendants(self._process.pid):
            try:
                times, memory = child.cpu_times(), child.memory_info()
            except psutil.Error:  # it ended meanwhile
                continue
            seconds += times.user + times.system + times.children_user + times.children_system
            rss += memory.rss
        return seconds, rss


def _descendants(pid: int) -> Iterator[psutil.Process]:
    """Children of children too, by the kernel's own lists: no walk over every process."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            try:
                yield psutil.Process(int(child))
            except psutil.Error:
                continue
            yield from _descendants(int(child))


def _cgroup_cpus(cgroups: Path) -> float | None:
    quota, _, period = _read(cgroups / "cpu.max").partition(" ")
    if not period:
        quota = _read(cgroups / "cpu/cpu.cfs_quota_us")
        period = _read(cgroups / "cpu/cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _cgroup_memory(cgroups: Path) -> int | None:
    text = _read(cgroups / "memory.max") or _read(cgroups / "memory/memory.limit_in_bytes")
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
