"""What is measured and how: variants side by side in one run, medians of rounds, bars, the table and the file."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

ROUNDS = 7
AT_LEAST, AT_MOST = "≥", "≤"

Work = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """One line of the table: a ratio (or, where the unit says so, a figure) and the bar that it has to pass.

    `measured` is None where the tables of this run are too small to judge the bar.
    """

    number: str
    what: str
    measured: float | None
    comparison: str
    bar: float
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not judged"
        passed = self.measured >= self.bar if self.comparison == AT_LEAST else self.measured <= self.bar
        return "pass" if passed else "FAIL"


@dataclass
class Report:
    """All lines of a run."""

    quick: bool
    lines: list[Measured] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)  # beside the bars, for who wants to know more

    def add(self, number: str, what: str, measured: float | None, comparison: str, bar: float, unit: str = "") -> None:
        """Keep a line, and print it at once: a run is long."""
        line = Measured(number, what, measured, comparison, bar, unit)
        self.lines.append(line)
        print(row(line), flush=True)

    def failed(self) -> bool:
        return any(line.verdict == "FAIL" for line in self.lines)

    def write(self, path: Path, facts: dict[str, object]) -> None:
        """Write what was measured, with the versions, machine and settings that it was measured on."""
        lines = [{**asdict(line), "verdict": line.verdict} for line in self.lines]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"facts": facts, "bars": lines, "figures": self.figures}, indent=2, ensure_ascii=False) + "\n"
        )


def row(line: Measured) -> str:
    shown = "–" if line.measured is None else f"{line.measured:.3g}{line.unit}"
    bar = f"{line.comparison} {line.bar:.3g}{line.unit}"
    return f"{line.number:>4}  {line.what:<66} {shown:>9}  {bar:<9} {line.verdict}"


def seconds(work: Work) -> float:
    """Return how long the work took, in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def side_by_side(variants: dict[str, Work], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Run the variants in turn, round after round, each time beginning with another; return the seconds of each."""
    names = list(variants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        variants[name]()  # a first time for caches, plans and connections; not counted
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(seconds(variants[name]))
    return taken


def settle(most_seconds: float = 3.0) -> None:
    """Wait until nobody on this machine is at work: what was stored just now is still being written back."""
    deadline = time.monotonic() + most_seconds
    while psutil.cpu_percent(0.2) > 10 and time.monotonic() < deadline:
        pass


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def percentile_95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what goes on, and how long it took."""
    started = time.perf_counter()
    print(f"      {what} …", end="", flush=True, file=sys.stderr)
    yield
    print(f" {time.perf_counter() - started:.0f} s", flush=True, file=sys.stderr)


def machine() -> dict[str, object]:
    """Return what this machine is, as far as a reader of ratios needs it."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "two processes that only count, against one": round(parallel_speed(), 2),
        "nanoseconds of a turn of an empty loop": round(loop_nanoseconds()),
    }


def loop_nanoseconds() -> float:
    """Return the processor time of one turn of a loop that does nothing: how fast this machine runs Python."""
    turns = 1_000_000

    def count() -> float:
        started = time.process_time()
        for _ in range(turns):
            pass
        return time.process_time() - started

    return statistics.median(count() for _ in range(5)) / turns * 1e9


def parallel_speed() -> float:
    """Return how much more two processes get done than one: 2 on two free cores.

    What needs two cores (two clients, two workers) can gain no more than this.
    """
    count = [sys.executable, "-c", "x = 0\nfor i in range(4_000_000): x += i"]

    def one_after_the_other() -> None:
        for _ in range(2):
            subprocess.run(count, check=True)

    def at_once() -> None:
        running = [subprocess.Popen(count) for _ in range(2)]
        for process in running:
            process.wait()

    taken = side_by_side({"in turn": one_after_the_other, "at once": at_once}, rounds=5)
    return ratio(taken["in turn"], taken["at once"])
