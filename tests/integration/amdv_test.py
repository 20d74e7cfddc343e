#!/usr/bin/python3
"""The integration tests once more on an emulated AMD-V host: KVM as hardware has it, whatever this machine has."""

import argparse
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support import amdv_host, amdv_overlay  # noqa: E402

SKIP = 77
PLACE = amdv_overlay.PLACE


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("test", nargs="+", help="a script beside this one, with its arguments, as one word")
    options = parser.parse_args()
    try:
        cache = amdv_host.Cache(options.build)
        archive = amdv_overlay.packed(cache, options.build, tests=True)
    except amdv_host.Unavailable as reason:
        print(f"skipped: {reason}")
        sys.exit(SKIP)
    commands = ["export PYTHONDONTWRITEBYTECODE=1 GODWIT_DEADLINE=120 GODWIT_MAX_DOWNTIME=10s "
                f"PATH={PLACE}/build/bin:$PATH"]
    for test in options.test:
        name, *arguments = shlex.split(test)
        commands.append(f"echo '== {name}'; /usr/bin/python3 {PLACE}/tests/integration/{name}_test.py "
                        f"--build {PLACE}/build {shlex.join(arguments)} || failed=1")
    commands.append("exit ${failed:-0}")

    def run():
        with amdv_host.Hosts(cache, [archive]) as (host,):
            running = host.start("; ".join(commands))
            for line in running.stdout:
                print(line.decode(errors="replace"), end="", flush=True)
            host.check()
            return running.returncode

    sys.exit(0 if amdv_host.attempt(run) == 0 else 1)


if __name__ == "__main__":
    main()
