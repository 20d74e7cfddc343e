"""Samples of a run: kept as they come, judged, and shown."""

import csv
import json
import statistics
from collections import defaultdict
from pathlib import Path

MEASURES = ("total_ms", "downtime_ms", "blackout_ms", "outside_ms", "pause_outside_ms", "wall_ms", "quiet_blackout_ms", "quiet_outside_ms",
            "bytes_over_used", "lost_work_percent", "brownout_copy_percent", "brownout_after_percent", "cpu_s",
            "throughput_mib_s", "share_of_link", "own_memory_source_mib", "own_memory_destination_mib",
            "peak_rss_over_guest")
BULK = "used MiB=1536"
NOISE_LIMIT_MS = 0.5  # p95 is judged only where the quiet window's is below
NOISE_LIMIT_PERCENT = 0.1  # of work: two quiet windows differ by as much


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(round(share * (len(ordered) - 1)), len(ordered) - 1)]


def summary(values):
    return {"median": statistics.median(values), "p95": quantile(values, 0.95), "min": min(values), "max": max(values),
            "n": len(values)}


class Results:
    """A directory: facts.json of the run, samples.jsonl, and what is made of them at the end."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.file = self.directory / "samples.jsonl"
        self.samples = []
        if self.file.exists():
            # A last line without its end was being written when the run was stopped.
            whole, _, torn = self.file.read_text(encoding="utf-8").rpartition("\n")
            self.samples = [json.loads(line) for line in whole.splitlines()]
            if torn:
                self.file.write_text("".join(json.dumps(sample) + "\n" for sample in self.samples), encoding="utf-8")

    def add(self, **sample):
        self.samples.append(sample)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")

    def set_facts(self, facts):
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @property
    def facts(self):
        return json.loads((self.directory / "facts.json").read_text(encoding="utf-8"))

    def count(self, point, system):
        return sum(1 for sample in self.samples
                   if (sample["point"], sample["system"]) == (point, system) and not sample.get("untimed"))

    def values(self, point, system, measure):
        return [sample[measure] for sample in self.samples
                if (sample["point"], sample["system"]) == (point, system) and sample.get(measure) is not None]

    def points(self):
        return list(dict.fromkeys(sample["point"] for sample in self.samples if "axis" in sample))

    def systems(self):
        return list(dict.fromkeys(sample["system"] for sample in self.samples if "axis" in sample))

    def median(self, point, system, measure):
        values = self.values(point, system, measure)
        return statistics.median(values) if values else None

    def by_axis(self):
        """{axis: [(value, point)]} in the order of the run."""
        found = defaultdict(dict)
        for sample in self.samples:
            if "axis" in sample:
                found[sample["axis"]][sample["value"]] = sample["point"]
        return {axis: list(values.items()) for axis, values in found.items()}

    def write(self):
        """results.json and results.csv."""
        table = []
        for point in self.points():
            for system in self.systems():
                for measure in MEASURES:
                    values = self.values(point, system, measure)
                    if values:
                        table.append({"point": point, "system": system, "measure": measure, **summary(values)})
        (self.directory / "results.json").write_text(
            json.dumps({"facts": self.facts, "summary": table, "samples": self.samples}, indent=1) + "\n",
            encoding="utf-8")
        with open(self.directory / "results.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["point", "system", "measure", "median", "p95", "min", "max", "n"])
            writer.writeheader()
            writer.writerows(table)

    def host_lines(self):
        """What was measured on, and what it can do at best."""
        facts = self.facts
        lines = [f"{facts['time']}: {facts['cpus']} CPUs ({facts['cpu']}), {facts['memory_mib']} MiB, Linux {facts['kernel']}, "
                 f"{', '.join(facts['kvm'])}; vmm {facts['vmm']}" + (f", {facts['qemu']}" if facts["qemu"] else "")]
        memory = [sample for sample in self.samples if sample["point"] == "memory"]
        if memory:
            lines.append("memory: memcpy {memcpy_mib_s:.0f} MiB/s, a page fault {fault_4k_us:.2f} us (4 KiB) or "
                         "{fault_huge_us:.0f} us (2 MiB)".format(**memory[0]))
        lines += [f"{sample['point']}: {sample['tcp_mib_s']:.0f} MiB/s" for sample in self.samples if "tcp_mib_s" in sample]
        bulk = self.median(BULK, "vmm", "throughput_mib_s")
        if memory and bulk:
            faults = 2 / memory[0]["fault_huge_us"] * 1e6
            lines.append(f"bulk copy of vmm: {bulk:.0f} MiB/s, {100 * bulk / memory[0]['memcpy_mib_s']:.0f} % of memcpy, "
                         f"{100 * bulk / faults:.0f} % of what page faults of 2 MiB allow")
        resolution = [sample for sample in self.samples if sample["point"] == "observer"]
        if resolution:
            lines.append("observer: a blocked thread wakes after {median_us:.0f} us (p95 {p95_us:.0f}); a beat comes every ms"
                         .format(**resolution[0]))
        return lines

    def differences(self):
        """Where the outside observer's median gap, less a period, differs from the guest's by more than 0.5 ms, and the
        median gap from the last beat here to the first one there, which says whether it was the move's."""
        found = []
        for point in self.points():
            for system in self.systems():
                inside, outside = (self.median(point, system, name) for name in ("blackout_ms", "outside_ms"))
                if inside is not None and abs(outside - 1 - inside) > 0.5:
                    seen = self.median(point, system, "pause_outside_ms")
                    found.append(f"{point}, {system}: guest {inside:.2f}, outside {outside - 1:.2f}; from host to host "
                                 f"{seen - 1:.2f}")
        return found

    def table(self):
        """Lines for a terminal: medians, and how much more the others need."""
        lines = [f"{'point':34}{'system':18}{'total ms':>10}{'downtime':>10}{'blackout':>10}{'p95':>8}{'outside':>9}"
                 f"{'brownout %':>11}{'bytes/used':>11}{'MiB/s':>7}{'of link %':>10}{'cpu s':>7}   ratio of total, blackout, cpu"]
        for point in self.points():
            for system in self.systems():
                if not self.count(point, system):
                    continue
                cell = {measure: self.median(point, system, measure) for measure in MEASURES}
                blackouts = self.values(point, system, "blackout_ms")
                line = f"{point:34}{system:18}"
                for value, width, digits in (
                        (cell["total_ms"], 10, 1), (cell["downtime_ms"], 10, 2), (cell["blackout_ms"], 10, 2),
                        (quantile(blackouts, 0.95), 8, 2), (cell["outside_ms"], 9, 2),
                        (cell["brownout_copy_percent"], 11, 1), (cell["bytes_over_used"], 11, 2),
                        (cell["throughput_mib_s"], 7, 0), (cell["share_of_link"], 10, 0), (cell["cpu_s"], 7, 2)):
                    line += " " * width if value is None else f"{value:{width}.{digits}f}"
                for measure in ("total_ms", "blackout_ms", "cpu_s"):
                    ours = self.median(point, "vmm", measure)
                    if system != "vmm" and ours:
                        line += f"  {cell[measure] / ours:5.1f} x"
                lines.append(line)
        return lines

    def markdown(self):
        """The medians that matter most, for a document; how many times as much each peer needs stands behind its own."""
        peers = [system for system in self.systems() if system != "vmm"]
        lines = ["| | total ms: vmm | " + " | ".join(peers) + " | blackout ms: vmm | " + " | ".join(peers) + " |",
                 "|---|" + "---|" * (2 + 2 * len(peers))]
        for point in self.points():
            cells = [point]
            for measure, digits in (("total_ms", 0), ("blackout_ms", 2)):
                ours = self.median(point, "vmm", measure)
                cells.append("" if ours is None else f"{ours:.{digits}f}")
                for peer in peers:
                    theirs = self.median(point, peer, measure)
                    cells.append("" if None in (ours, theirs) else f"{theirs:.{digits}f} ({theirs / ours:.1f} x)")
            lines.append("| " + " | ".join(cells) + " |")
        return lines


class Figures:
    """The figures to reach: each is a line and whether it holds; None where this run has no sample for it."""

    def __init__(self, results):
        self.results = results
        self.peers = [system for system in results.systems() if system != "vmm"]

    def all(self):
        return [figure for method in (self.bulk, self.idle, self.dirty, self.sparse, self.prediction, self.brownout,
                                      self.memory, self.start) for figure in method()]

    def judge(self, text, holds, *medians):
        """One figure; `text` has a place and `holds` an argument for each median."""
        if None in medians:
            return text.format(*("?" if median is None else f"{median:.2f}" for median in medians)), None
        return text.format(*(f"{median:.2f}" for median in medians)), holds(*medians)

    def bulk(self):
        ours, default, multifd = (self.results.median(BULK, system, "throughput_mib_s")
                                  for system in ("vmm", "qemu-default", "qemu-multifd"))
        limit = self.results.median("raw TCP over loopback", "host", "tcp_mib_s")
        yield self.judge("1 bulk: {} MiB/s, one raw TCP stream {} (60 %)", lambda a, b: a >= 0.6 * b, ours, limit)
        yield self.judge("1 bulk: {} MiB/s, qemu-default {} (2.5 times)", lambda a, b: a >= 2.5 * b, ours, default)
        yield self.judge("1 bulk: {} MiB/s, qemu-multifd {} (1.3 times)", lambda a, b: a >= 1.3 * b, ours, multifd)

    def idle(self):
        sizes = self.results.by_axis().get("idle memory MiB", [])
        if not sizes:
            yield "2 idle", None
        for value, point in sizes:
            median = self.results.median(point, "vmm", "blackout_ms")
            yield self.judge(f"2 idle, {value} MiB: blackout {{}} ms (1)", lambda a: a <= 1, median)
            blackouts, noise = (self.results.values(point, "vmm", name) for name in ("blackout_ms", "quiet_blackout_ms"))
            if noise and quantile(noise, 0.95) < NOISE_LIMIT_MS:
                yield self.judge(f"2 idle, {value} MiB: p95 {{}} ms (2)", lambda a: a <= 2, quantile(blackouts, 0.95))
            for peer in self.peers:
                yield self.judge(f"2 idle, {value} MiB: {{}} ms, {peer} {{}}", lambda a, b: a < b, median,
                                 self.results.median(point, peer, "blackout_ms"))
        small, large = (self.results.median(f"idle memory MiB={size}", "vmm", "blackout_ms") for size in (256, 8192))
        yield self.judge("2 idle: {} ms at 8 GiB, {} at 256 MiB (1.5 times)", lambda a, b: a <= 1.5 * b, large, small)

    def dirty(self):
        for point, most, part in (("pages/s over 256 MiB=20000", 2, 4), ("pages/s over 512 MiB=200000", 20, 5)):
            ours, theirs = (self.results.median(point, system, "blackout_ms") for system in ("vmm", "qemu-default"))
            yield self.judge(f"3 {point}: blackout {{}} ms ({most})", lambda a, m=most: a <= m, ours)
            yield self.judge(f"3 {point}: {{}} ms, qemu-default {{}} (a {part}th)", lambda a, b, p=part: a * p <= b, ours,
                             theirs)
        totals = [self.results.median(point, system, "total_ms") for system in ("vmm", "qemu-default")]
        yield self.judge(f"3 {point}: total {{}} ms, qemu-default {{}}", lambda a, b: a <= b, *totals)

    def sparse(self):
        ours, theirs = (self.results.median("sparse=64 MiB of 8 GiB", system, "total_ms")
                        for system in ("vmm", "qemu-default"))
        yield self.judge("4 sparse: total {} ms (200)", lambda a: a <= 200, ours)
        yield self.judge("4 sparse: {} ms, qemu-default {} (half)", lambda a, b: 2 * a <= b, ours, theirs)

    def prediction(self):
        pairs = [(sample["predicted_ms"], sample["downtime_ms"]) for sample in self.results.samples
                 if sample.get("predicted_ms")]
        good = sum(1 for predicted, actual in pairs if actual / 1.5 <= predicted <= actual * 1.5)
        yield self.judge(f"5 prediction within a factor of 1.5 in {{}} % of {len(pairs)} runs (90)", lambda a: a >= 90,
                         100 * good / len(pairs) if pairs else None)

    def brownout(self):
        rates = [point for axis in ("pages/s over 256 MiB", "pages/s over 512 MiB")
                 for _, point in self.results.by_axis().get(axis, [])]
        if not rates:
            yield "6 brownout", None
        for point in rates:
            for measure, text in (("brownout_copy_percent", "vCPU kept waiting while rounds run"),
                                  ("lost_work_percent", "work lost in all")):
                yield self.judge(f"6 {point}: {text} {{}} %, qemu-default {{}}",
                                 lambda a, b: a <= b + NOISE_LIMIT_PERCENT,
                                 *(self.results.median(point, system, measure) for system in ("vmm", "qemu-default")))

    def memory(self):
        for image in ("pulse.elf", "idle.elf"):
            yield self.judge(f"7 memory of vmm, {image} at rest: {{}} MiB (8)", lambda a: a <= 8,
                             self.results.median(f"resting {image}", "vmm", "own_memory_mib"))
        for point in self.results.points():
            used = next(sample["used_mib"] for sample in self.results.samples
                        if sample["point"] == point and "axis" in sample)
            most = 8 + 0.005 * used
            for side in ("source", "destination"):
                yield self.judge(f"7 memory of vmm, {point}, {side}: {{}} MiB ({most:.1f})", lambda a, m=most: a <= m,
                                 self.results.median(point, "vmm", f"own_memory_{side}_mib"))

    def start(self):
        yield self.judge("8 start: {} ms (10)", lambda a: a <= 10, self.results.median("start", "vmm", "start_ms"))
