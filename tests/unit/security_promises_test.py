#!/usr/bin/python3
"""docs/SECURITY.md: each promise names patches that take it out, and all of them are there."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    rows = re.findall(r"^\| \*\*(.+?)\*\*.* \| (.+) \|$", (ROOT / "docs" / "SECURITY.md").read_text(), re.MULTILINE)
    if not rows:
        sys.exit("docs/SECURITY.md has no promises")
    problems = []
    for promise, patches in rows:
        names = re.findall(r"`([\w*-]+)`", patches.replace("`--retry`", ""))
        missing = [name for name in names if not any((ROOT / "tests" / "mutations").glob(f"{name}.patch"))]
        if missing or not names:
            problems.append(f"{promise} patches that are not there: {missing}" if missing else f"{promise} no patch")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
