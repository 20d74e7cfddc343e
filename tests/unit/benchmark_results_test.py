#!/usr/bin/env python3
"""What tools/bench makes of its samples."""

import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
from benchmark import measure, points  # noqa: E402
from benchmark.results import Figures, Results, quantile  # noqa: E402


class Beats(unittest.TestCase):
    def test_the_longest_gap_is_the_pause(self):
        # One beat a millisecond from 0 to 1 s; none from 0.5 to 0.52, and every second one from 0.3 to 0.5.
        beats = [i / 1000 for i in range(1001) if not 500 < i < 520 and not (300 < i < 500 and i % 2)]
        found = measure.brownout(beats, 0.3)
        self.assertAlmostEqual(found["brownout_copy_percent"], 50, delta=1)
        self.assertAlmostEqual(found["brownout_after_percent"], 0, delta=1)

    def test_too_few_beats_say_nothing(self):
        self.assertEqual(measure.brownout([1.0], 0.5), {})
        self.assertIsNone(measure.lost_beats_percent([1.0], 1.0, 1.003))


class Judgement(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.results = Results(self.directory.name)

    def add(self, system, point, **values):
        self.results.add(system=system, point=point.name, axis=point.axis, value=point.value, used_mib=point.used_mib,
                         **values)

    def verdicts(self, method):
        return [holds for _, holds in getattr(Figures(self.results), method)()]

    def test_quantiles(self):
        self.assertEqual([quantile([4, 1, 3, 2, 5], share) for share in (0, 0.5, 0.95, 1)], [1, 3, 5, 5])

    def test_idle_is_judged_by_median_noise_and_peer(self):
        small, large = points.idle(256), points.idle(8192)
        for point, ours, theirs in ((small, 0.8, 2.0), (large, 1.3, 1.2)):
            for _ in range(3):
                self.add("vmm", point, blackout_ms=ours, quiet_blackout_ms=0.2)
                self.add("qemu-default", point, blackout_ms=theirs)
        # median, p95, below the peer's; then the ratio of sizes.
        self.assertEqual(self.verdicts("idle"), [True, True, True, False, True, False, False])

    def test_p95_is_not_judged_where_the_machine_is_noisy(self):
        self.add("vmm", points.idle(256), blackout_ms=0.8, quiet_blackout_ms=0.6)
        self.assertEqual(self.verdicts("idle"), [True])

    def test_bulk_is_a_share_of_raw_tcp_and_a_multiple_of_the_peer(self):
        point = next(point for point in points.all_points() if point.name == "used MiB=1536")
        self.results.add(system="host", point="raw TCP over loopback", tcp_mib_s=5000)
        self.add("vmm", point, throughput_mib_s=3000)
        self.add("qemu-default", point, throughput_mib_s=1300)
        self.add("qemu-multifd", point, throughput_mib_s=1300)
        self.assertEqual(self.verdicts("bulk"), [True, False, True])

    def test_memory_may_grow_with_what_the_guest_uses(self):
        point = next(point for point in points.all_points() if point.name == "used MiB=1536")
        self.results.add(system="vmm", point=point.name, untimed=True, own_memory_source_mib=15.6,
                         own_memory_destination_mib=15.8)
        self.add("vmm", point, blackout_ms=1)
        self.assertEqual(self.verdicts("memory"), [True, False])

    def test_prediction_counts_both_directions(self):
        for predicted in [1] * 9 + [2.0]:
            self.add("vmm", points.idle(256), predicted_ms=predicted, downtime_ms=1.0)
        self.assertEqual(self.verdicts("prediction"), [True])
        self.add("vmm", points.idle(256), predicted_ms=0.5, downtime_ms=1.0)
        self.assertEqual(self.verdicts("prediction"), [False])

    def test_what_is_missing_is_not_judged(self):
        self.assertEqual(Figures(self.results).all(), [])

    def test_samples_are_found_again(self):
        point = points.idle(256)
        self.results.add(system="vmm", point=point.name, untimed=True, peak_rss_over_guest=0.1)
        self.add("vmm", point, blackout_ms=0.8)
        again = Results(self.directory.name)
        self.assertEqual(again.count(point.name, "vmm"), 1)
        self.assertEqual(again.values(point.name, "vmm", "peak_rss_over_guest"), [0.1])


if __name__ == "__main__":
    unittest.main()
