#!/usr/bin/python3
"""tools/amdv-host and the demo on it, as users start them."""

import argparse
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from integration import harness  # noqa: E402
from integration.harness import Failure, check  # noqa: E402
from support import amdv_host  # noqa: E402

TOOL = ROOT / "tools" / "amdv-host"


def start(build, *words):
    return subprocess.Popen([TOOL, "--build", build, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def two_hosts(build):
    """Output and exit status of a command there, and on the other host."""
    command = 'test -c /dev/kvm && vmm --help >/dev/null && uname -n && on-b "uname -n; exit 5"; exit $(($? + 2))'
    tool = start(build, "--hosts", "2", "--", command)
    output, _ = tool.communicate()
    check(output == "a\nb\n" and tool.returncode == 7, f"exit status {tool.returncode}: {output!r}")


def killed(build):
    """No process is left of a tool that is killed."""
    tool = start(build, "--", "echo up; sleep 1000")
    check(tool.stdout.readline() == "up\n", "no word from the command")
    handles = [os.pidfd_open(child) for child in harness.children(tool.pid)]
    check(len(handles) == 1, f"{len(handles)} children, not one QEMU")
    tool.send_signal(signal.SIGKILL)
    tool.wait()
    check(select.select(handles, [], [], harness.DEADLINE)[0] == handles, "QEMU goes on without the tool")


def demo(build):
    words = [ROOT / "tools" / "demo.py", "--build", build, "--emulate", "--round-trips", "1"]
    done = subprocess.run(["/usr/bin/python3", *words], capture_output=True, text=True, check=False)
    check(done.returncode == 0 and "the guest says PASS" in done.stdout, done.stdout + done.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    options = parser.parse_args()
    try:
        amdv_host.Cache(options.build)
    except amdv_host.Unavailable as reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIP)
    for test in (two_hosts, killed, demo):
        try:
            test(options.build)
            print(f"passed {test.__name__}", flush=True)
        except Failure as failure:
            sys.exit(f"FAILED {test.__name__}: {failure}")


if __name__ == "__main__":
    main()
