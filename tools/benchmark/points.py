"""What is measured: one axis at a time around a base point, and the points of the figures that --check judges."""

from dataclasses import dataclass

BEAT_HZ = 1000  # of the heartbeats that the outside observer sees
QUICK = "quick"
DEFAULT = "default"
FULL = "full"
SCALES = (QUICK, DEFAULT, FULL)


@dataclass(frozen=True)
class Point:
    axis: str
    value: object
    memory_mib: int = 1024
    image: str = "dirty.elf"
    fill: int = 256  # MiB with contents that do not compress
    working_set: int = 256  # MiB
    pages_per_s: object = 5000  # or "max"
    pattern: str = "random"
    streams: int = 1
    link: str = "loopback"
    guests: int = 1
    tls: bool = False
    scale: str = DEFAULT  # the smallest run that has it

    @property
    def name(self):
        return f"{self.axis}={self.value}"

    @property
    def parameters(self):
        words = [f"beat_hz={BEAT_HZ}"]
        if self.image == "dirty.elf":
            words += [f"fill={self.fill}", f"ws={self.working_set}", f"pps={self.pages_per_s}",
                      f"pattern={self.pattern}"]
        return " ".join(words)

    @property
    def used_mib(self):
        return self.fill if self.image == "dirty.elf" else 0


def idle(memory_mib, scale=DEFAULT):
    return Point("idle memory MiB", memory_mib, memory_mib=memory_mib, image="pulse.elf", scale=scale)


def all_points():
    points = [idle(256, QUICK), idle(1024), idle(2048), idle(4096), idle(8192, QUICK), idle(16384, FULL)]
    points += [Point("used MiB", used, memory_mib=2048, fill=used, working_set=min(used, 64), pages_per_s=0, scale=scale)
               for used, scale in ((64, FULL), (256, FULL), (512, DEFAULT), (1536, QUICK))]
    points.append(Point("sparse", "64 MiB of 8 GiB", memory_mib=8192, fill=64, working_set=64, pages_per_s=0, scale=QUICK))
    points += [Point("pages/s over 256 MiB", rate, pages_per_s=rate, scale=scale)
               for rate, scale in ((0, DEFAULT), (1000, FULL), (5000, DEFAULT), (20000, QUICK), (50000, DEFAULT),
                                   (100000, FULL))]
    points.append(Point("pages/s over 512 MiB", 200000, fill=512, working_set=512, pages_per_s=200000, scale=QUICK))
    points.append(Point("pages/s over 512 MiB", "max", fill=512, working_set=512, pages_per_s="max", scale=FULL))
    points += [Point("working set MiB", size, working_set=size, pages_per_s=20000, scale=scale)
               for size, scale in ((16, DEFAULT), (64, FULL), (256, DEFAULT))]
    points += [Point("pattern", pattern, pattern=pattern, pages_per_s=20000, scale=DEFAULT)
               for pattern in ("random", "seq", "hotcold")]
    points += [Point("streams", streams, memory_mib=2048, fill=1024, working_set=64, pages_per_s=0, streams=streams,
                     scale=DEFAULT) for streams in (1, 2, 4)]
    points += [Point("link", link, link=link, scale=scale)
               for link, scale in (("loopback", DEFAULT), ("veth", DEFAULT), ("10gbit", DEFAULT), ("1gbit", FULL))]
    points += [Point(f"TLS, {streams} streams", word, memory_mib=2048, fill=1024, working_set=64, pages_per_s=0,
                     streams=streams, tls=word == "on", scale=DEFAULT) for streams in (1, 2) for word in ("off", "on")]
    points += [Point("guests", count, memory_mib=512, fill=128, working_set=64, guests=count, scale=scale)
               for count, scale in ((1, DEFAULT), (2, DEFAULT), (4, FULL))]
    return points


def chosen(scale):
    return [point for point in all_points() if SCALES.index(point.scale) <= SCALES.index(scale)]
