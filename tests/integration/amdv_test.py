#!/usr/bin/python3
"""The integration tests once more on an emulated AMD-V host: KVM as hardware has it, whatever this machine has."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from support import amdv_host  # noqa: E402

SKIP = 77


def overlay(build):
    """What the tests need, where they look for it."""
    files = amdv_host.Overlay().add_python()
    for name in ("tests/integration", "tests/support", "tests/guests", "docs"):
        files.add(ROOT / name, f"/godwit/{name}")
    for name in ("vmm", "gated_vmm", "hostile_manifest"):
        files.add_program(build / "bin" / name, f"/godwit/build/bin/{name}")
    for path in (build / "guests").glob("*.*"):
        files.add(path, f"/godwit/build/guests/{path.name}")
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=280, help="seconds for all of it")
    parser.add_argument("test", nargs="+", help="a script beside this one, with its arguments, as one word")
    options = parser.parse_args()
    try:
        cache = amdv_host.Cache(options.build)
    except amdv_host.Unavailable as reason:
        print(f"skipped: {reason}")
        sys.exit(SKIP)
    commands = ["export PYTHONDONTWRITEBYTECODE=1 GODWIT_DEADLINE=120"]
    for test in options.test:
        name, *arguments = shlex.split(test)
        commands.append(f"echo '== {name}'; /usr/bin/python3 /godwit/tests/integration/{name}_test.py "
                        f"--build /godwit/build {shlex.join(arguments)} || failed=1")
    commands.append("exit ${failed:-0}")
    with tempfile.TemporaryDirectory(dir=cache.directory) as scratch:
        archive = Path(scratch) / "overlay.cpio"
        overlay(options.build.resolve()).pack(archive)
        with amdv_host.Host(cache, [archive], "\n".join(commands), sys.stdout) as host:
            status = host.wait(options.limit)
    if status is None:
        print("the emulated host crashed, or did not end in time")
    sys.exit(1 if status is None else status)


if __name__ == "__main__":
    main()
