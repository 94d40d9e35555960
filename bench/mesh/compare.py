"""(a) One mesh call against its peers, 1 KB of JSON over mutual TLS, side by side in one run.

Every round runs all variants in turn; the figures are medians over the rounds, ratios within them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pki
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rows import Row, figure, keep, show

HERE = Path(__file__).resolve().parent
COMMAND = "make bench"
VARIANTS = {  # name -> calls at 1, calls at 32 concurrent
    "floor": (3000, 20000),
    "hivemesh": (3000, 20000),
    "hivemesh_async": (3000, 20000),
    "nats_mtls": (2000, 15000),
    "grpc_aio": (1500, 5000),
    "fastapi_httpx": (800, 800),
}
GOALS = {  # (concurrency, peer, what) -> goal of the ratio hivemesh : peer
    (32, "floor", "cpu"): "<= 1.5",
    (32, "floor", "rate"): ">= 0.7",
    (32, "fastapi_httpx", "rate"): ">= 40",
    (32, "grpc_aio", "rate"): ">= 4",
    (32, "grpc_aio", "cpu saved"): ">= 4",
    (32, "nats_mtls", "rate"): ">= 1.0",
    (1, "floor", "cpu"): "<= 1.8",
    (1, "floor", "rate"): ">= 0.5",
    (1, "fastapi_httpx", "rate"): ">= 4",
    (1, "grpc_aio", "rate"): ">= 1.5",
    (1, "nats_mtls", "rate"): ">= 1.2",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One variant in one round."""

    rate: float  # calls per second
    cpu_ms: float  # client and servers, per call


def measure(rounds: int = 3) -> list[Row]:
    """Run all variants and answer with their figures."""
    found: dict[tuple[int, str], list[Sample]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as text:
        folder = Path(text)
        pki.write(folder)
        for _ in range(rounds):
            for name, calls in VARIANTS.items():
                with _Server(name, folder) as server:
                    for concurrency, count in zip((1, 32), calls, strict=True):
                        sample = server.load(count, concurrency)
                        found.setdefault((concurrency, name), []).append(sample)
        overload = list(_overload(folder))
    return [*_rows(found), *overload]


def _overload(folder: Path) -> Iterator[Row]:
    """Calls beyond the slots are refused at once, and cost no memory."""
    with _Server("hivemesh", folder) as server:
        before = server.rss_mib()
        seen = server.press(seconds=6.0)
        growth = server.rss_mib() - before
    name = "overload, ten times the slots"
    if not (seen["accepted"] and seen["refused"]):
        raise RuntimeError(seen)
    yield figure(f"{name}, refused", seen["refused"], "calls", command=COMMAND)
    yield figure(f"{name}, malformed refusals", seen["malformed"], "", "<= 0", command=COMMAND)
    yield figure(f"{name}, refusal p50", seen["p50_ms"], "ms", command=COMMAND)
    yield figure(f"{name}, refusal p99", seen["p99_ms"], "ms", "<= 100", command=COMMAND)
    yield figure(f"{name}, memory growth", growth, "MiB", "<= 8", command=COMMAND)


def _rows(found: dict[tuple[int, str], list[Sample]]) -> Iterator[Row]:
    for (concurrency, name), samples in sorted(found.items()):
        rate = statistics.median(one.rate for one in samples)
        cpu = statistics.median(one.cpu_ms for one in samples)
        yield figure(
            f"mesh call, {name}, {concurrency} concurrent", rate, "calls/s", command=COMMAND
        )
        yield figure(
            f"mesh call, {name}, {concurrency} concurrent, CPU", cpu, "ms", command=COMMAND
        )
    for (concurrency, peer, what), goal in GOALS.items():
        ours, theirs = found[concurrency, "hivemesh"], found[concurrency, peer]
        pairs = list(zip(ours, theirs, strict=True))
        ratio = {
            "rate": lambda a, b: a.rate / b.rate,
            "cpu": lambda a, b: a.cpu_ms / b.cpu_ms,
            "cpu saved": lambda a, b: b.cpu_ms / a.cpu_ms,
        }[what]
        value = statistics.median(ratio(a, b) for a, b in pairs)
        name = f"mesh call, {what} against {peer}, {concurrency} concurrent"
        yield figure(name, value, "x", goal, command=COMMAND)


class _Server:
    """A serving process (and its children) while it is compared."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def __enter__(self) -> "_Server":
        command = [sys.executable, str(HERE / "side.py"), "server", self._name, str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._port = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        family = self._family()
        for one in family:
            one.terminate()
        psutil.wait_procs(family, timeout=10)

    def load(self, calls: int, concurrency: int) -> Sample:
        """Let a client process make the calls."""
        command = [sys.executable, str(HERE / "side.py"), "client", self._name, str(self._folder)]
        command += [self._port, str(calls), str(concurrency)]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        client.stdout.readline()  # "go": warm
        before = self._cpu()
        answer = json.loads(client.stdout.readline())
        after = self._cpu()
        client.wait()
        cpu = answer["cpu_s"] + after - before
        return Sample(answer["calls"] / answer["wall_s"], 1000 * cpu / answer["calls"])

    def press(self, seconds: float) -> dict[str, float]:
        """Let a client process call more than there are slots for."""
        command = [sys.executable, str(HERE / "overload.py"), str(self._folder)]
        done = subprocess.run(
            [*command, self._port, str(seconds)], capture_output=True, check=True, text=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    def rss_mib(self) -> float:
        """Resident memory of the server's processes."""
        return sum(one.memory_info().rss for one in self._family()) / 1024**2

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self._process.pid)
        return [*parent.children(recursive=True), parent]

    def _cpu(self) -> float:
        """CPU seconds of the server's processes, to the nanosecond where the kernel tells."""
        total = 0.0
        for one in self._family():
            for thread in Path(f"/proc/{one.pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0]) / 1e9
        return total


if __name__ == "__main__":
    measured = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    show(measured)
    if len(sys.argv) > 2:
        keep(measured, Path(sys.argv[2]))
