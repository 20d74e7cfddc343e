"""Samples of a run: kept as they come, judged, and shown."""

import csv
import json
import statistics
from collections import defaultdict
from pathlib import Path

MEASURES = ("total_ms", "downtime_ms", "blackout_ms", "outside_ms", "quiet_blackout_ms", "quiet_outside_ms",
            "bytes_over_used", "lost_work_percent", "brownout_copy_percent", "brownout_after_percent", "cpu_s",
            "throughput_mib_s", "share_of_link", "own_memory_source_mib", "own_memory_destination_mib",
            "peak_rss_over_guest")
NOISE_LIMIT_MS = 0.5  # p95 is judged only where the quiet window's is below


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
        self.directory.mkdir(parents=True, exist_ok=True)
        self.file = self.directory / "samples.jsonl"
        self.samples = []
        if self.file.exists():
            self.samples = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]

    def add(self, **sample):
        self.samples.append(sample)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")

    def set_facts(self, facts):
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
        resolution = [sample for sample in self.samples if sample["point"] == "observer"]
        if resolution:
            lines.append("observer: a blocked thread wakes after {median_us:.0f} us (p95 {p95_us:.0f}); a beat comes every ms"
                         .format(**resolution[0]))
        return lines

    def differences(self):
        """Where the outside observer's median gap, less a period, differs from the guest's by more than 0.5 ms."""
        found = []
        for point in self.points():
            for system in self.systems():
                inside, outside = (self.median(point, system, name) for name in ("blackout_ms", "outside_ms"))
                if inside is not None and abs(outside - 1 - inside) > 0.5:
                    found.append(f"{point}, {system}: guest {inside:.2f}, outside {outside - 1:.2f}")
        return found

    def table(self):
        """Lines for a terminal: medians, and how much more the others need."""
        lines = [f"{'point':34}{'system':18}{'total ms':>10}{'downtime':>10}{'blackout':>10}{'p95':>8}{'outside':>9}"
                 f"{'brownout %':>11}{'bytes/used':>11}{'MiB/s':>7}{'of link %':>10}{'cpu s':>7}   ratio of total, of blackout"]
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
                ours = self.median(point, "vmm", "total_ms"), self.median(point, "vmm", "blackout_ms")
                if system != "vmm" and all(ours):
                    line += f"   {cell['total_ms'] / ours[0]:.1f} x  {cell['blackout_ms'] / ours[1]:.1f} x"
                lines.append(line)
        return lines


class Figures:
    """The figures to reach; each is a line and whether it holds. None: this run has not the points for it."""

    def __init__(self, results):
        self.results = results
        self.peers = [system for system in results.systems() if system != "vmm"]

    def all(self):
        return [figure for method in (self.bulk, self.idle, self.dirty, self.sparse, self.prediction, self.brownout,
                                      self.memory, self.start) for figure in method()]

    def bulk(self):
        point = "used MiB=1536"
        ours = self.results.median(point, "vmm", "throughput_mib_s")
        limit = self.results.median("raw TCP over loopback", "host", "tcp_mib_s")
        if ours is None:
            return
        if limit:
            yield f"1 bulk: {ours:.0f} MiB/s is {100 * ours / limit:.0f} % of one raw TCP stream (60)", ours >= 0.6 * limit
        for peer, factor in (("qemu-default", 2.5), ("qemu-multifd", 1.3)):
            theirs = self.results.median(point, peer, "throughput_mib_s")
            if theirs:
                yield f"1 bulk: {ours / theirs:.1f} times {peer} ({factor})", ours >= factor * theirs

    def idle(self):
        found = {}
        for value, point in self.results.by_axis().get("idle memory MiB", []):
            blackouts = self.results.values(point, "vmm", "blackout_ms")
            found[value] = statistics.median(blackouts)
            yield f"2 idle, {value} MiB: blackout {found[value]:.2f} ms (1)", found[value] <= 1
            noise = self.results.values(point, "vmm", "quiet_blackout_ms")
            if quantile(noise, 0.95) < NOISE_LIMIT_MS:
                p95 = quantile(blackouts, 0.95)
                yield f"2 idle, {value} MiB: p95 {p95:.2f} ms (2)", p95 <= 2
            for peer in self.peers:
                theirs = self.results.median(point, peer, "blackout_ms")
                if theirs:
                    yield f"2 idle, {value} MiB: {found[value]:.2f} ms, {peer} {theirs:.2f}", found[value] < theirs
        if 256 in found and 8192 in found:
            ratio = found[8192] / found[256]
            yield f"2 idle: 8 GiB takes {ratio:.2f} times 256 MiB (1.5)", ratio <= 1.5

    def dirty(self):
        for point, most, share in (("pages/s over 256 MiB=20000", 2, 1 / 4), ("pages/s over 512 MiB=200000", 20, 1 / 5)):
            ours = self.results.median(point, "vmm", "blackout_ms")
            if ours is None:
                continue
            yield f"3 {point}: blackout {ours:.2f} ms ({most})", ours <= most
            theirs = self.results.median(point, "qemu-default", "blackout_ms")
            if theirs:
                yield f"3 {point}: {ours:.2f} ms, qemu-default {theirs:.2f} (a {1 / share:.0f}th)", ours <= share * theirs
                totals = [self.results.median(point, system, "total_ms") for system in ("vmm", "qemu-default")]
                if most == 20:
                    yield f"3 {point}: total {totals[0]:.0f} ms, qemu-default {totals[1]:.0f}", totals[0] <= totals[1]

    def sparse(self):
        point = "sparse=64 MiB of 8 GiB"
        ours = self.results.median(point, "vmm", "total_ms")
        if ours is None:
            return
        yield f"4 sparse: total {ours:.0f} ms (200)", ours <= 200
        theirs = self.results.median(point, "qemu-default", "total_ms")
        if theirs:
            yield f"4 sparse: {ours:.0f} ms, qemu-default {theirs:.0f} (half)", ours <= theirs / 2

    def prediction(self):
        pairs = [(sample["predicted_ms"], sample["downtime_ms"]) for sample in self.results.samples
                 if sample.get("predicted_ms")]
        if pairs:
            good = sum(1 for predicted, actual in pairs if actual / 1.5 <= predicted <= actual * 1.5)
            share = 100 * good / len(pairs)
            yield f"5 prediction within a factor of 1.5 in {share:.0f} % of {len(pairs)} runs (90)", share >= 90

    def brownout(self):
        for _, point in self.results.by_axis().get("pages/s over 256 MiB", []):
            ours = self.results.median(point, "vmm", "brownout_copy_percent")
            theirs = self.results.median(point, "qemu-default", "brownout_copy_percent")
            if ours is not None and theirs is not None:
                yield f"6 {point}: brownout while rounds run {ours:.1f} %, qemu-default {theirs:.1f} %", ours <= theirs

    def memory(self):
        halted = self.results.median("halted", "vmm", "own_memory_mib")
        if halted:
            yield f"7 memory of vmm, guest halted: {halted:.1f} MiB (8)", halted <= 8
        for point in self.results.points():
            first = next(sample for sample in self.results.samples if sample["point"] == point and "axis" in sample)
            for side in ("source", "destination"):
                used = self.results.median(point, "vmm", f"own_memory_{side}_mib")
                if used is not None:
                    limit = 8 + 0.005 * first["used_mib"]
                    yield f"7 memory of vmm, {point}, {side}: {used:.1f} MiB ({limit:.1f})", used <= limit

    def start(self):
        values = self.results.values("start", "vmm", "start_ms")
        if values:
            yield f"8 start: {statistics.median(values):.1f} ms (10)", statistics.median(values) <= 10
