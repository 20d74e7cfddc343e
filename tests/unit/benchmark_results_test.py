#!/usr/bin/env python3
"""What tools/bench makes of its samples."""

import mmap
import os
import sys
import tempfile
import threading
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
from benchmark import measure, memory, points  # noqa: E402
from benchmark.results import Figures, Results, quantile  # noqa: E402


class Phases(unittest.TestCase):
    def test_what_was_stolen_is_a_share_of_the_time_between_two_moments(self):
        # A look every 5 ms; from 100 ms on half of the time goes to others.
        looks = [(i / 200, max(0, i - 20) / 400) for i in range(41)]
        self.assertAlmostEqual(measure.stolen_percent(looks, 0.1, 0.2), 50)
        self.assertAlmostEqual(measure.stolen_percent(looks, 0.0, 0.1), 0)

    def test_too_few_looks_say_nothing(self):
        self.assertIsNone(measure.stolen_percent([(0.0, 0.0), (0.005, 0.001)], 0, 1))

    def test_the_pause_lies_between_the_last_beat_here_and_the_first_there(self):
        beats = [(0, 1.000), (0, 1.001), (0, 1.005), (1, 1.007), (1, 1.020)]
        self.assertEqual(measure.pause_seen(beats, 0, 1), (1.005, 1.007))

    def test_a_thread_that_ends_ends_the_looking(self):
        over = threading.Event()
        thread = threading.Thread(target=over.wait)
        thread.start()
        with measure.RunDelay(Path(f"/proc/self/task/{thread.native_id}")) as delay:
            over.set()
            thread.join()
            delay.thread.join(timeout=30)
            self.assertFalse(delay.thread.is_alive())


class Memory(unittest.TestCase):
    def test_guest_ram_does_not_count_and_other_memory_does(self):
        # Touched, so that they are resident: 160 MiB are guest RAM, 32 MiB are not.
        before = memory.own_pss(os.getpid())
        ram = mmap.mmap(-1, 160 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        ram.madvise(mmap.MADV_HUGEPAGE)  # as vmm does; it never becomes one mapping with a neighbour
        own = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for area in (ram, own):
            for page in range(0, len(area), 4096):
                area[page] = 1
        with memory.Sampler(lambda: {"it": os.getpid()}) as sampler:
            pass
        self.assertAlmostEqual(sampler.own_mib["it"] - before, 32, delta=8)
        self.assertGreater(sampler.peak_mib["it"], 192)
        self.assertGreaterEqual(sampler.looks, 1)
        for area in (ram, own):
            area.close()


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
        # Median, p95, below the peer's, for each size; then the ratio of sizes.
        self.assertEqual(self.verdicts("idle"), [True, True, True, False, True, False, False])

    def test_p95_is_not_judged_where_the_machine_is_noisy(self):
        self.add("vmm", points.idle(256), blackout_ms=0.8, quiet_blackout_ms=0.6)
        self.assertEqual(self.verdicts("idle"), [True, None])

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
        self.assertEqual(self.verdicts("memory"), [None, None, True, False])

    def test_prediction_counts_both_directions(self):
        for predicted in [1] * 9 + [2.0]:
            self.add("vmm", points.idle(256), predicted_ms=predicted, downtime_ms=1.0)
        self.assertEqual(self.verdicts("prediction"), [True])
        self.add("vmm", points.idle(256), predicted_ms=0.5, downtime_ms=1.0)
        self.assertEqual(self.verdicts("prediction"), [False])

    def test_what_is_missing_is_said(self):
        figures = Figures(self.results).all()
        self.assertEqual({holds for _, holds in figures}, {None})
        self.assertEqual({text[0] for text, _ in figures}, set("12345678"))

    def test_a_torn_line_is_dropped(self):
        self.add("vmm", points.idle(256), blackout_ms=0.8)
        with open(self.results.file, "a", encoding="utf-8") as file:
            file.write('{"system": "vmm", "po')
        again = Results(self.directory.name)
        again.add(system="vmm", point="start", start_ms=5)
        self.assertEqual(len(Results(self.directory.name).samples), 2)

    def test_figures_of_a_peer_are_multiples(self):
        point = next(point for point in points.all_points() if point.name == "pages/s over 256 MiB=20000")
        self.add("vmm", point, blackout_ms=2.0)
        self.add("qemu-default", point, blackout_ms=7.9)
        self.assertEqual(self.verdicts("dirty")[:2], [True, False])

    def test_samples_are_found_again(self):
        point = points.idle(256)
        self.results.add(system="vmm", point=point.name, untimed=True, peak_rss_over_guest=0.1)
        self.add("vmm", point, blackout_ms=0.8)
        again = Results(self.directory.name)
        self.assertEqual(again.count(point.name, "vmm"), 1)
        self.assertEqual(again.values(point.name, "vmm", "peak_rss_over_guest"), [0.1])


if __name__ == "__main__":
    unittest.main()
