"""The demo behind tools/demo: one guest, two hosts on loopback, ten round trips, one table."""

import argparse
import os
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from guests import proof  # noqa: E402
from integration import harness  # noqa: E402
from integration.harness import Failure, check  # noqa: E402
from support import amdv_overlay  # noqa: E402

COLUMNS = (("move", 4), ("memory", 8), ("writes/s", 9), ("rounds", 6), ("sent", 9), ("total", 9), ("predicted", 10),
           ("downtime", 9), ("blackout", 9), ("proof", 6), ("self-check", 10))


def row(values):
    print("  ".join(str(value).rjust(width) for value, (_, width) in zip(values, COLUMNS)), flush=True)


def move(bed, number, here, there, serial, memory_mib):
    """One move; the guest's serial port there."""
    # 64 pages of a sequence that is made up now: the destination cannot know it but from the guest's memory.
    seed = bed.random.getrandbits(64)
    serial.ask(f"mark {seed:x}", "marked")
    before = serial.ask("status")
    report = here.migrate(there.listener.address, *harness.LIMITS)
    serial.close()
    serial = there.serial()
    after = serial.ask("status")
    answer = serial.ask("proof")
    proven = int(answer["seed"], 16) == seed and int(answer["hash"], 16) == proof.proof_hash(seed) and \
        answer["ok"] == "1"
    verdict = serial.ask("check")
    row((number, f"{memory_mib} MiB", before["pps"], len(report["rounds"]), f"{report['bytes_sent'] / 2**20:.1f} MiB",
         f"{report['total_ms']:.1f} ms", f"{report['predicted_downtime_ms']:.2f} ms", f"{report['downtime_ms']:.2f} ms",
         f"{float(after['gap_us']) / 1000:.2f} ms", "ok" if proven else "WRONG",
         "ok" if verdict["ok"] == "1" else "FAILED"))
    check(report["result"] == "completed", f"move {number}: {report['result']}")
    check(report["digest"]["verified"], f"move {number}: the digest was not verified")
    check(proven, f"move {number}: the page sequence is wrong: {answer}")
    check(verdict["ok"] == "1", f"move {number}: the guest found {verdict}")
    return serial


def run(bed, options):
    for host in (bed.a, bed.b):
        host.listener = host.receive()
    guest = bed.a.run("dirty.elf", memory=f"{options.memory}M",
                      append=f"fill={options.memory // 2} ws={options.memory // 4} pps={options.pps} pattern=random")
    guest.serial.expect("ready")
    print(f"A guest of {options.memory} MiB moves between two hosts on loopback, there and back "
          f"{options.round_trips} times. Seed {options.seed}.\n")
    row([name for name, _ in COLUMNS])
    serial = guest.serial
    start = time.monotonic()
    here, there = bed.a, bed.b
    for number in range(1, 2 * options.round_trips + 1):
        serial = move(bed, number, here, there, serial, options.memory)
        here, there = there, here
    check(guest.wait() == 0, f"the source ended with {guest.popen.returncode}: {guest.log()}")
    serial.send("finish")
    verdict = serial.expect("PASS")
    seconds = time.monotonic() - start
    print(f"\n{2 * options.round_trips} moves in {seconds:.1f} s; the guest says PASS after {verdict['writes']} writes.")
    print("downtime: first vCPU asked to stop to the first KVM_RUN there, as the source bounds it; "
          "blackout: the longest gap the guest's own loop saw.")


def run_on_emulated_host(reason, options):
    """Does not return: this demo once more, where there is KVM."""
    print(f"{reason}: this runs on an emulated AMD-V host, where every step takes ten times as long.", flush=True)
    command = ["env", "GODWIT_MAX_DOWNTIME=10s", "GODWIT_DEADLINE=120", "python3", f"{amdv_overlay.PLACE}/tools/demo.py",
               "--memory", options.memory or 64, "--pps", options.pps, "--round-trips", options.round_trips, "--seed",
               options.seed]
    amdv_host = ROOT / "tools" / "amdv-host"
    os.execv(amdv_host, [str(word) for word in (amdv_host, "--build", options.build, "--", *command)])


def main():
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--memory", type=int, help="MiB of the guest (default 256; 64 on an emulated host)")
    parser.add_argument("--pps", type=int, default=20000, help="pages the guest writes a second (default 20000)")
    parser.add_argument("--round-trips", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--build", default=ROOT / "build")
    parser.add_argument("--emulate", action="store_true", help="on an emulated host, even where /dev/kvm can be used")
    options = parser.parse_args()
    reason = "asked to" if options.emulate else harness.kvm_reason()
    if reason:
        run_on_emulated_host(reason, options)
    options.memory = options.memory or 256
    try:
        with harness.Bed(options) as bed:
            run(bed, options)
    except Failure as failure:
        sys.exit(f"demo: FAILED: {failure}")


if __name__ == "__main__":
    main()
