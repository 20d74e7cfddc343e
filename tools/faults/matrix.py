"""The cells of the fault lab: kind of fault x phase x side, which of them can be reached, and the plans of their rows.

What a phase sends and records is in migration/PROTOCOL.md; the kinds are those of migration/fault.hpp, and what the lab
does to a process from outside."""

import random
from dataclasses import dataclass

MESSAGE_KINDS = ("cut", "truncate", "stall", "delay", "corrupt", "duplicate", "reorder")
RECORD_KINDS = ("disk-full", "read-only")
PROCESS_KINDS = ("kill", "stop")
KINDS = (*MESSAGE_KINDS, "late", *RECORD_KINDS, *PROCESS_KINDS, "clock", "no-memory")


@dataclass(frozen=True)
class Phase:
    messages: int = 0  # that this side surely sends
    records: int = 0  # that it writes
    critical: bool = False  # between Pause and Running


PHASES = {
    "source": {
        "connect": Phase(),
        "negotiate": Phase(messages=1),
        "preflight": Phase(messages=1),
        "prepare": Phase(messages=3, records=1),
        "copy": Phase(messages=6),
        "pause": Phase(critical=True),
        "final": Phase(messages=3, critical=True),
        "commit": Phase(messages=1, records=1, critical=True),
        "done": Phase(messages=1, records=1),
    },
    "destination": {
        "greeted": Phase(messages=1),
        "configured": Phase(messages=1, records=1),
        "receiving": Phase(messages=3),
        "verified": Phase(critical=True),
        "loaded": Phase(messages=1, records=2, critical=True),
        "started": Phase(messages=1, records=1, critical=True),
    },
}
CLOCK_PHASES = (("source", "preflight"), ("destination", "greeted"))


@dataclass(frozen=True)
class Cell:
    kind: str
    phase: str
    side: str

    def __str__(self):
        return f"{self.kind}@{self.phase}/{self.side}"

    @property
    def what(self):
        return PHASES[self.side][self.phase]

    def unreachable(self):
        """Why; empty if it can be reached."""
        if self.kind in MESSAGE_KINDS and self.what.messages == 0:
            return "this side sends no message in this phase"
        if self.kind == "late" and self.phase != "commit":
            return "only Commit does harm when it comes too late; of others the order on one connection is kept by TCP"
        if self.kind in RECORD_KINDS and self.what.records == 0:
            return "this side writes no record in this phase"
        if self.kind == "clock" and (self.side, self.phase) not in CLOCK_PHASES:
            return "no wall clock is read: the hosts' clocks are compared once, in preflight"
        if self.kind == "no-memory" and (self.side, self.phase) != ("destination", "configured"):
            return "all memory of the guest is mapped in Prepare; running out of it later is `kill`, by the kernel"
        return ""

    def plan(self, seed):
        """A row of this cell: the text for --fault, and what the lab draws for itself."""
        draw = random.Random(seed)
        step, argument = 1, None
        if self.kind in MESSAGE_KINDS:
            step = draw.randint(1, self.what.messages)
        elif self.kind in PROCESS_KINDS:
            step = draw.randint(0, self.what.messages + self.what.records)
        if self.kind in ("corrupt", "truncate"):
            # Half of them in the header of the frame.
            argument = draw.randrange(24) if draw.random() < 0.5 else draw.randrange(1 << 20)
        elif self.kind == "delay":
            argument = draw.randint(10, 900)
        elif self.kind == "late":
            argument = draw.randint(100, 2500)
        elif self.kind == "clock":
            argument = draw.choice((-1, 1)) * draw.randint(1, 1 << 20)
        text = f"{self.kind}@{self.phase}" + (f":{step}" if self.kind != "clock" else "")
        return Plan(text if argument is None else f"{text}={argument}", step, draw.choice((0.2, 1, 4, 12)),
                    argument / 1000 if self.kind == "late" else 0, draw.choice(((), ("--retry", "5s"))),
                    draw.choice((0, 1, 2)), draw.choice((False, True)))


@dataclass(frozen=True)
class Plan:
    fault: str
    step: int
    stopped_s: float  # of `stop`: until the process is let go on
    late_s: float  # of `late`: until the message arrives
    retry: tuple  # words for `vmm migrate`
    streams: int  # data connections
    tls: bool


def cells():
    return [Cell(kind, phase, side) for side, phases in PHASES.items() for phase in phases for kind in KINDS]


def reachable():
    return [cell for cell in cells() if not cell.unreachable()]


def rows(each):
    """Each reachable cell so often; those between Pause and Running oftener, so that they are half of all."""
    critical = [cell for cell in reachable() if cell.what.critical]
    others = [cell for cell in reachable() if not cell.what.critical]
    oftener = max(each, -(-each * len(others) // len(critical)))
    return critical * oftener + others * each
