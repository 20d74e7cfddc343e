"""What processes hold in memory, while something goes on."""

import re
from pathlib import Path

from benchmark.periodic import Periodic

PERIOD = 0.01  # seconds
# An anonymous mapping this large is guest RAM: no guest here has less, and nothing else comes near.
GUEST_RAM = 128 << 20
MAPPING = re.compile(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )")
PSS = re.compile(r"^Pss:\s+(\d+) kB", re.M)
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.M)


def own_pss(pid):
    """MiB: the proportional share of all mappings but guest RAM."""
    kib = 0
    for text in MAPPING.split(Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8"))[1:]:
        fields = text.split("\n", 1)[0].split()
        begin, end = (int(word, 16) for word in fields[0].split("-"))
        if len(fields) > 5 or end - begin < GUEST_RAM:
            kib += int(PSS.search(text).group(1))
    return kib / 1024


def peak_rss(pid):
    """MiB, guest RAM included."""
    return int(PEAK.search(Path(f"/proc/{pid}/status").read_text(encoding="ascii")).group(1)) / 1024


class Sampler(Periodic):
    """While it is open, looks at the processes that `processes()` names: {role: pid}."""

    def __init__(self, processes):
        super().__init__(PERIOD)
        self.processes = processes
        self.own_mib = {}  # the highest seen, by role
        self.peak_mib = {}
        self.looks = 0

    def look(self):
        self.looks += 1
        for role, pid in self.processes().items():
            try:
                self.own_mib[role] = max(self.own_mib.get(role, 0), own_pss(pid))
                self.peak_mib[role] = max(self.peak_mib.get(role, 0), peak_rss(pid))
            except (FileNotFoundError, ProcessLookupError, AttributeError):
                pass  # it has just ended
        return True
