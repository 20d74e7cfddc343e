"""Downtime, blackout and throughput of live migration against memory size, dirty rate and more, beside QEMU's."""

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
from benchmark import link, measure, points, systems  # noqa: E402
from benchmark.results import Figures, Results  # noqa: E402

SECONDS_A_SAMPLE = 1.4  # about, for what a run says of its own time
RUNS = {points.QUICK: 3, points.DEFAULT: 10, points.FULL: 10}


def parse():
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_const", dest="scale", const=points.QUICK, help="a few points, 3 runs each")
    scale.add_argument("--full", action="store_const", dest="scale", const=points.FULL, help="every point")
    parser.add_argument("--peer", choices=["qemu"], help="measure it in the same run, in turn with ours")
    parser.add_argument("--runs", type=int, help="samples of each point")
    parser.add_argument("--only", help="points whose name has this in it")
    parser.add_argument("--out", type=Path, help="directory of the results (default: bench-results/TIME)")
    parser.add_argument("--resume", type=Path, metavar="DIR",
                        help="go on with a run that was interrupted, as it was asked for")
    parser.add_argument("--check", action="store_true", help="compare with the figures to reach; status 1 if one is not")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.set_defaults(scale=points.DEFAULT)
    options = parser.parse_args()
    if options.resume:
        try:
            asked = Results(options.resume).facts["asked"]
        except FileNotFoundError:
            parser.error(f"{options.resume} has no facts.json: not the results of a run")
        for name, value in asked.items():
            setattr(options, name, value)
    return options


def first_line(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    except FileNotFoundError:
        return None


def facts(options):
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
                  if line.startswith("model name")), "unknown")
    return {
        "asked": {name: getattr(options, name) for name in ("scale", "peer", "runs", "only")},
        "command": " ".join(["tools/bench", *sys.argv[1:]]), "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "cpus": os.cpu_count(), "cpu": model, "kernel": platform.release(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kvm": sorted(path.name for path in Path("/sys/module").glob("kvm*")),
        "vmm": first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "qemu": first_line("qemu-system-x86_64", "--version") if options.peer else None,
        "qemu_parameters": {name: {"max-bandwidth": systems.Qemu.UNLIMITED, **parameters, "capabilities": capabilities}
                            for name, (parameters, capabilities) in systems.Qemu.PARAMETERS.items()},
    }


def write_report(results):
    try:
        from benchmark import report_html
    except ModuleNotFoundError as missing:
        print(f"no report.html: {missing}; tools/bench installs it", file=sys.stderr)
    else:
        report_html.write(results)


class Progress:
    def __init__(self, total):
        self.total = total
        self.done = 0
        self.begin = time.monotonic()

    def step(self, text):
        self.done += 1
        spent = time.monotonic() - self.begin
        left = spent / self.done * (self.total - self.done)
        bar = "#" * (30 * self.done // self.total)
        if sys.stderr.isatty():
            print(f"\r[{bar:30}] {self.done}/{self.total}, {left / 60:.0f} min left  {text:60.60}", end="", file=sys.stderr,
                  flush=True)
        elif self.done == self.total or self.done % 10 == 0:
            print(f"{self.done}/{self.total}, {left / 60:.0f} min left", file=sys.stderr, flush=True)


def left(results, point, name, runs):
    """How many runs a system still owes; each leaves a sample of every guest."""
    return max(runs - results.count(point.name, name) // point.guests, 0)


def measure_point(tools, results, point, names, runs, progress):
    """All systems in turn, so that a drift of the machine hits all alike, and each after every other."""
    limit = results.median(f"raw TCP over {point.link}", "host", "tcp_mib_s")
    subjects = {}
    try:
        for name in names:
            if left(results, point, name, runs):
                subjects[name] = measure.Subject(tools, name, point)
                held = subjects[name].warm_up()
                if not results.values(point.name, name, "looks"):
                    results.add(system=name, point=point.name, untimed=True, **held)
                subjects[name].hold(True)
        for turn in range(runs):
            order = names[turn % len(names):] + names[:turn % len(names)]
            for name in order:
                if not left(results, point, name, runs):
                    continue
                subjects[name].hold(False)
                samples = subjects[name].sample()
                subjects[name].hold(True)
                share = 100 * sum(found["throughput_mib_s"] for found in samples) / limit
                for found in samples:
                    used = point.used_mib << 20
                    results.add(system=name, point=point.name, axis=point.axis, value=point.value, used_mib=point.used_mib,
                                bytes_over_used=found["bytes"] / used if used else None, share_of_link=share, **found)
                progress.step(f"{point.name}, {name}")
    finally:
        for subject in subjects.values():
            subject.close()


def measure_host(tools, results, chosen, runs):
    """What the machine can do at best, the observer, and what is not a migration."""
    if not results.count("memory", "host"):
        results.add(system="host", point="memory", **measure.memory_limits(tools))
    for kind in dict.fromkeys(["loopback", *(point.link for point in chosen)]):
        if not results.count(f"raw TCP over {kind}", "host"):
            results.add(system="host", point=f"raw TCP over {kind}", tcp_mib_s=measure.tcp_mib_s(tools, kind))
    if not results.count("observer", "host"):
        results.add(system="host", point="observer", **measure.observer_resolution(tools))
    for image in ("pulse.elf", "idle.elf"):
        if not results.count(f"resting {image}", "vmm"):
            results.add(system="vmm", point=f"resting {image}",
                        own_memory_mib=measure.resting_own_memory_mib(tools, image))
    if not results.count("start", "vmm"):
        for seconds in measure.start_seconds(tools, 2 * runs):
            results.add(system="vmm", point="start", start_ms=seconds * 1000)


def run(tools, results, chosen, names, runs):
    measure_host(tools, results, chosen, runs)
    of = {point: [name for name in names if name == "vmm" or not point.tls] for point in chosen}
    progress = Progress(sum(left(results, point, name, runs) for point in chosen for name in of[point]))
    for point in chosen:
        measure_point(tools, results, point, of[point], runs, progress)


def open_results(options):
    """The directory of the run; ends the program where it would mix what does not belong together."""
    results = Results(options.resume or options.out or Path("bench-results") / time.strftime("%Y%m%d-%H%M%S"))
    now = facts(options)
    if not options.resume:
        if results.samples:
            sys.exit(f"bench: {results.directory} has samples already: --resume goes on with them")
        results.set_facts(now)
    for name in ("cpu", "kernel", "vmm", "qemu"):
        if results.facts[name] != now[name]:
            sys.exit(f"bench: {results.directory} was measured with {name} {results.facts[name]}, this is {now[name]}: "
                     "start anew")
    return results


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped by SIGTERM"))  # the machine is put back
    options = parse()
    why_not = link.why_not() or (systems.why_no_qemu() if options.peer else "")
    if why_not:
        sys.exit(f"bench: {why_not}")
    tools = measure.Tools(options.build.resolve())
    chosen = [point for point in points.chosen(options.scale) if not options.only or options.only in point.name]
    names = ["vmm"] + ([name for name in systems.SYSTEMS if name != "vmm"] if options.peer else [])
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    too_large = [point for point in chosen
                 if point.memory_mib >= room or 2 * len(names) * (point.used_mib + 256) * point.guests >= room]
    for point in too_large:
        print(f"not measured: {point.name} needs more memory than this machine has")
        chosen.remove(point)
    runs = options.runs or RUNS[options.scale]
    results = open_results(options)
    print(f"{len(chosen)} points, {len(names)} systems, {runs} runs: about "
          f"{len(chosen) * len(names) * (runs + 1) * SECONDS_A_SAMPLE / 60 + 1:.0f} minutes. "
          f"Results go to {results.directory}", flush=True)
    with link.cubic_allowed(), measure.memory_kept():
        run(tools, results, chosen, names, runs)
    results.write()
    (results.directory / "overview.md").write_text("\n".join(results.markdown()) + "\n", encoding="utf-8")
    write_report(results)
    print("\n" + "\n".join([*results.host_lines(), "", *results.table()]) + "\n")
    verdicts = Figures(results).all()
    for text, holds in verdicts:
        print(f"{ {True: 'ok', False: 'MISSED', None: 'no sample'}[holds]:10}{text}")
    sys.exit(0 if all(holds for _, holds in verdicts) or not options.check else 1)


if __name__ == "__main__":
    main()
