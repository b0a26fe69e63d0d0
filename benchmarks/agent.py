# SPDX-License-Identifier: Apache-2.0
"""What a pod's addresses cost through relay and agent, beside an exec of the reference host-local: DESIGN §9's table.

Rounds interleave all programs, so that a noisy machine is noisy for each; a ratio is taken within its round, and shown is the median.
The agent's CPU time counts to the relay's. Reservations of both lie in memory, as in /run, unless --data-dir names another place.
CNI_TEST_PATH names the reference's directory; with KUBEBUILDER_ASSETS requests are counted at a real API server, which the agent watches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentlab import EMPTY, IN_MEMORY, Agent, Lab, Program, api_requests, concurrently, made_up, resident_mb
from rich.console import Console
from rich.table import Table
from standalone import PASS, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentlab import Sample

ROUNDS = {0: 100, 250: 50, 4000: 20, 60000: 5}  # by reservations; the reference takes two seconds a call at the end
SMOKE = {0: 2, 250: 2}
BARS: dict[int, tuple[float, float | None]] = {0: (0.5, 0.3), 250: (0.2, None), 4000: (0.03, None), 60000: (0.003, None)}  # wall, CPU
GROWTH, STANDALONE, CONCURRENT, STATUS, FLOOR, REPORTING = 1.5, 2.5, 0.5, 1.0, 1.5, 1.05
MEMORY = {250: 45.0, 60000: 80.0}  # MB
MADE_UP, EVERY = 3000, 1.0  # networks that do not exist; seconds between passes of housekeeping
PODS, AT_ONCE = 200, 64


class Row(NamedTuple):
    """A line of the table: what was measured, on both sides, and the bar."""

    what: str
    ours: str
    reference: str
    value: float
    bar: float

    @property
    def met(self) -> bool:
        return self.value <= self.bar


class Series(NamedTuple):
    """The samples of one program, round by round."""

    samples: list[Sample]

    def wall_ms(self) -> float:
        return statistics.median(sample.wall for sample in self.samples) * 1000

    def cpu_ms(self) -> float:
        return statistics.median(sample.cpu for sample in self.samples) * 1000

    def wall_ratio(self, other: Series) -> float:
        return statistics.median(a.wall / b.wall for a, b in zip(self.samples, other.samples, strict=True))

    def cpu_ratio(self, other: Series) -> float:
        return statistics.median(a.cpu / b.cpu for a, b in zip(self.samples, other.samples, strict=True))


def rounds(programs: list[Program], count: int) -> dict[str, Series]:
    """Run all programs in turn, `count` times; the first time fills caches and does not count."""
    found: dict[str, list[Sample]] = {program.name: [] for program in programs}
    for number in range(count + 1):
        for program in programs:
            sample = program.run()
            if number:
                found[program.name].append(sample)
    return {name: Series(samples) for name, samples in found.items()}


def against_reference(lab: Lab, most_rounds: dict[int, int]) -> Iterator[Row]:
    """ADD and DEL at each number of reservations, ours and the reference's in turn."""
    adds: dict[int, Series] = {}
    for count, most in most_rounds.items():
        programs = [lab.relay("ADD", count), lab.reference("ADD", count), lab.relay("DEL", count), lab.reference("DEL", count)]
        if count == 0:
            programs += [lab.relay("STATUS", count), lab.standalone("ADD"), lab.standalone("DEL"), lab.nothing(), lab.empty()]
        series = rounds(programs, most)
        adds[count] = series["relay ADD"]
        wall_bar, cpu_bar = BARS[count]
        for command in ("ADD", "DEL"):
            ours, theirs = series[f"relay {command}"], series[f"reference {command}"]
            what = f"{command}, {count:,} reservations"
            yield Row(f"{what}: wall", f"{ours.wall_ms():.2f} ms", f"{theirs.wall_ms():.2f} ms", ours.wall_ratio(theirs), wall_bar)
            if cpu_bar:
                yield Row(f"{what}: CPU", f"{ours.cpu_ms():.2f} ms", f"{theirs.cpu_ms():.2f} ms", ours.cpu_ratio(theirs), cpu_bar)
        if count == 0:
            status, add, alone, nothing = [series[name] for name in ("relay STATUS", "relay ADD", "standalone ADD", PASS)]
            yield Row("STATUS against ADD: wall", f"{status.wall_ms():.2f} ms", f"{add.wall_ms():.2f} ms", status.wall_ratio(add), STATUS)
            empty = series[EMPTY]
            what = f"ADD, 0 reservations, against {EMPTY}: wall"
            yield Row(what, f"{add.wall_ms():.2f} ms", f"{empty.wall_ms():.2f} ms", add.wall_ratio(empty), FLOOR)
            what = f"standalone ADD against {PASS}: wall"
            yield Row(what, f"{alone.wall_ms():.1f} ms", f"{nothing.wall_ms():.1f} ms", alone.wall_ratio(nothing), STANDALONE)
    full, none = adds[max(adds)].wall_ms(), adds[0].wall_ms()
    yield Row(f"ADD, {max(adds):,} reservations against none: wall", f"{full:.2f} ms", f"{none:.2f} ms", full / none, GROWTH)


def at_once(lab: Lab, pods: int, repetitions: int) -> Row:
    """Many ADDs, so many of them at once; ours and the reference's in turn."""
    ratios, walls = [], []
    for _ in range(repetitions):
        pair = [concurrently(lab, way, pods, AT_ONCE) for way in ("relay", "reference")]
        walls.append(pair)
        ratios.append(pair[0] / pair[1])
    ours, theirs = (statistics.median(pair[side] for pair in walls) for side in (0, 1))
    return Row(f"{pods} ADDs, {AT_ONCE} at once: wall", f"{ours:.2f} s", f"{theirs:.2f} s", statistics.median(ratios), CONCURRENT)


def reporting(lab: Lab, most: int) -> Iterator[Row]:
    """ADD and DEL by an agent with --node-addresses and by one without, in turn."""
    with lab.reporting() as agent:
        calls = [(by, command) for by in (lab.agent, agent) for command in ("ADD", "DEL")]
        series = rounds([lab.relay(command, 0, by)._replace(name=f"{command} {by.pid}") for by, command in calls], most)
    for command in ("ADD", "DEL"):
        plain, reports = series[f"{command} {lab.agent.pid}"], series[f"{command} {agent.pid}"]
        what = f"{command} with --node-addresses against without: wall"
        yield Row(what, f"{reports.wall_ms():.2f} ms", f"{plain.wall_ms():.2f} ms", reports.wall_ratio(plain), REPORTING)


def memory(lab: Lab, counts: list[int]) -> Iterator[Row]:
    """Measure the resident memory of an agent that watches its Node and has a network with so many reservations."""
    for count in counts:
        with Agent(lab.directory / f"memory{count}", lab.agent_arguments) as agent:
            lab.relay("STATUS", count, agent).run()
            for _ in range(20):
                lab.relay("ADD", count, agent).run()
                lab.relay("DEL", count, agent).run()
            megabytes = resident_mb(agent.pid)
        yield Row(f"agent with {count:,} reservations: resident MB", f"{megabytes:.1f} MB", "", megabytes, MEMORY[count])


def after_made_up(lab: Lab, count: int) -> Row:
    """Measure the resident memory of an agent that was called for networks that do not exist, after passes of housekeeping."""
    with Agent(lab.directory / "made-up", [*lab.agent_arguments, f"--every={EVERY:g}"]) as agent:
        made_up(agent, count)
        time.sleep(3 * EVERY)
        megabytes = resident_mb(agent.pid)
    what = f"agent after {count:,} networks that do not exist: resident MB"
    return Row(what, f"{megabytes:.1f} MB", "", megabytes, MEMORY[min(MEMORY)])


def measure(directory: Path, data_dir: Path, smoke: bool) -> list[Row]:  # noqa: FBT001 -- of the one caller
    binaries = directory / "bin"
    program = Path(__file__).resolve().parent.parent / "packaging/binaries.py"
    subprocess.run([sys.executable, program, f"--output={binaries}"], check=True, stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(directory, binaries, Path(os.environ["CNI_TEST_PATH"], "host-local"), data_dir))
        rows = [*against_reference(lab, SMOKE if smoke else ROUNDS), at_once(lab, 20 if smoke else PODS, 1 if smoke else 7)]
        if lab.api_server:
            rows += reporting(lab, 2 if smoke else ROUNDS[0])
            for way, bar in (("standalone", 1.0), ("relay", 0.0)):
                requests = float(api_requests(lab, way, 20 if smoke else PODS))
                rows.append(Row(f"API requests for {PODS} ADDs on a cold node, {way}", f"{requests:g}", "", requests, bar))
        rows += memory(lab, list(MEMORY)[:1] if smoke else list(MEMORY))
        return [*rows, after_made_up(lab, MADE_UP)]


def show(rows: list[Row]) -> None:
    table = Table(title=machine(), caption="medians of interleaved runs; ratio: ours to what it is measured against, or the value itself")
    for heading in ("", "ours", "against", "ratio", "bar", ""):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for row in rows:
        table.add_row(row.what, row.ours, row.reference, f"{row.value:.4g}", f"{row.bar:g}", "met" if row.met else "not met")
    Console(width=140, markup=False).print(table)


def as_markdown(rows: list[Row]) -> str:
    lines = [f"{machine()}.", "", "| what | ours | against | ratio | bar | |", "|---|---:|---:|---:|---:|---|"]
    lines += [f"| {r.what} | {r.ours} | {r.reference} | {r.value:.4g} | {r.bar:g} | {'met' if r.met else '**not met**'} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few rounds: shows only that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--data-dir", type=Path, default=IN_MEMORY, help="where reservations are made and removed again")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/explanation/performance.md has it")
    arguments = parser.parse_args()
    if "CNI_TEST_PATH" not in os.environ:
        parser.error("CNI_TEST_PATH is not set: a directory with the reference's host-local")
    scratch = tempfile.TemporaryDirectory(prefix="kn-bench.")
    networks = tempfile.TemporaryDirectory(prefix="kn-bench.", dir=arguments.data_dir)
    with scratch, networks:
        rows = measure(Path(scratch.name), Path(networks.name), arguments.smoke)
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": [{**row._asdict(), "met": row.met} for row in rows]}, indent=2))
    elif arguments.markdown:
        print(as_markdown(rows))
    else:
        show(rows)


if __name__ == "__main__":
    main()
