#!/usr/bin/env python3
"""tools/bench goes on with an interrupted run, and writes all it promises."""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
from benchmark import bench as bench_module  # noqa: E402
from integration import harness  # noqa: E402

POINT = "used MiB=64"
ASKED = argparse.Namespace(scale="full", peer=None, runs=2, only=POINT)
# What takes seconds and has been measured already.
MEASURED = [{"system": "host", "point": "memory", "memcpy_mib_s": 1.0, "fault_4k_us": 1.0, "fault_huge_us": 1.0},
            {"system": "host", "point": "raw TCP over loopback", "tcp_mib_s": 1000.0},
            {"system": "host", "point": "observer", "median_us": 20.0, "p95_us": 30.0},
            {"system": "vmm", "point": "start", "start_ms": 5.0}]


def bench(directory, options):
    """The timed samples of the point, and what was printed."""
    words = ["/usr/bin/python3", ROOT / "tools" / "benchmark" / "bench.py", "--build", options.build, "--resume", directory]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    harness.check(done.returncode == 0, f"bench: {done.stdout}{done.stderr}")
    samples = [json.loads(line) for line in (directory / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    return [sample for sample in samples if sample["point"] == POINT and "axis" in sample], done.stdout


def resumed(options):
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "facts.json").write_text(json.dumps(bench_module.facts(ASKED)), encoding="utf-8")
        (directory / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in MEASURED), encoding="utf-8")
        for _ in range(2):  # the second time there is nothing left to measure
            timed, said = bench(directory, options)
            harness.check(len(timed) == 2, f"{len(timed)} samples instead of 2")
        for name in ("total_ms", "downtime_ms", "blackout_ms", "outside_ms", "brownout_copy_percent", "cpu_s", "rounds"):
            harness.check(all(name in sample for sample in timed), f"a sample without {name}")
        # Beats are listed in whole us, gaps are not. On a busy host the source's last beat may be seen after the
        # destination's first: below 0 then.
        for sample in timed:
            harness.check(sample["outside_ms"] > 0 and sample["outside_ms"] > sample["pause_outside_ms"] - 0.002,
                          f"the observer did not see the guest go: {sample}")
        harness.check(POINT in said and "7 memory of vmm" in said, f"no table: {said}")
        results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
        harness.check({row["measure"] for row in results["summary"]} > {"blackout_ms", "peak_rss_over_guest"}, "no summary")
        harness.check(POINT in (directory / "results.csv").read_text(encoding="utf-8"), "no results.csv")
        if importlib.util.find_spec("matplotlib"):
            report = (directory / "report.html").read_text(encoding="utf-8")
            harness.check(report.count("<img") >= 3, "no plots in report.html")


if __name__ == "__main__":
    harness.main({"resumed": resumed})
