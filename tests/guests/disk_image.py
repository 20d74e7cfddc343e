#!/usr/bin/env python3
"""Judges the image that the Linux guest's disk writer leaves behind; the format is in guest-images/linux/disk_block.hpp."""

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guests.proof import GOLDEN_RATIO, MASK, mix  # noqa: E402

BLOCK_BYTES = 4096
MAGIC = 0x6B7369647477646F
HEADER_WORDS = 4


def block(seed, sequence, count):
    """What was written `sequence`th, counted from 1, to a disk of `count` blocks."""
    words = [MAGIC, seed, sequence, (sequence - 1) % count]
    state = mix((seed + sequence) & MASK)
    while len(words) < BLOCK_BYTES // 8:
        state = (state + GOLDEN_RATIO) & MASK
        words.append(mix(state))
    return struct.pack(f"<{len(words)}Q", *words)


def fault(image, acknowledged, count, seed=1):
    """The first acknowledged block that is not there as it was written; empty when all are."""
    with open(image, "rb") as disk:
        for sequence in range(max(1, acknowledged - count + 1), acknowledged + 1):
            place = (sequence - 1) % count
            disk.seek(place * BLOCK_BYTES)
            got = disk.read(BLOCK_BYTES)
            # Later blocks may have been written and not yet acknowledged: they take the places of the oldest.
            if got[:16] == struct.pack("<2Q", MAGIC, seed):
                newer = struct.unpack_from("<Q", got, 16)[0]
                if newer > acknowledged and (newer - sequence) % count == 0 and got == block(seed, newer, count):
                    continue
            if got != block(seed, sequence, count):
                magic, holder, newer, there = struct.unpack_from("<4Q", got)
                whole = magic == MAGIC and got == block(holder, newer, count)
                return (f"block {place} does not hold sequence number {sequence}, of {acknowledged} acknowledged; there is "
                        f"{'' if whole else 'what begins like '}magic {magic:#x}, seed {holder}, sequence {newer}, block {there}")
    return ""


if __name__ == "__main__":
    reason = fault(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(f"{sys.argv[1]}: {reason}" if reason else 0)
