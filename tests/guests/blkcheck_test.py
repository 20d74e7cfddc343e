#!/usr/bin/python3
"""blkcheck.elf notices what it is made for: the disk is changed behind its back, while QEMU holds the guest."""

import argparse
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from qemu_guest import QemuGuest, skip_without_qemu  # noqa: E402

BLOCK = 4096
AREA = 1 << 20  # bytes


def lost_write(guest, disk):
    """All that was written since a while ago is gone."""
    old = guest.scratch / "old"
    guest.qmp("stop")
    shutil.copyfile(disk, old)
    guest.qmp("cont")
    writes = int(guest.ask("status")["writes"])
    while int(guest.ask("status")["writes"]) < writes + 4 * AREA // BLOCK:
        pass
    guest.qmp("stop")
    with open(disk, "r+b") as file:
        file.write(old.read_bytes())


def misplaced_sector(guest, disk):
    """Each block is where the next one belongs."""
    guest.qmp("stop")
    with open(disk, "r+b") as file:
        blocks = file.read(AREA)
        file.seek(0)
        file.write(blocks[-BLOCK:] + blocks[:-BLOCK])


def bad_sector(guest, disk):
    """One sector of each block is not what anybody wrote."""
    guest.qmp("stop")
    with open(disk, "r+b") as file:
        for block in range(AREA // BLOCK):
            file.seek(block * BLOCK + 512 * random.randrange(8))
            file.write(random.randbytes(512))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    options = parser.parse_args()
    skip_without_qemu()
    for damage in (lost_write, misplaced_sector, bad_sector):
        # Without discard and write zeroes every block is a written one.
        with QemuGuest("disk", options.image, f"area={AREA >> 20}", "discard=off,write-zeroes=off") as guest:
            guest.expect("ready")
            damage(guest, guest.scratch / "disk")
            guest.qmp("cont")
            verdict = guest.expect("FAIL")
            assert verdict["reason"] == damage.__name__, verdict


if __name__ == "__main__":
    main()
