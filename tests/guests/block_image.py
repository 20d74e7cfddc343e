#!/usr/bin/python3
"""The disk of blkcheck.elf, judged from outside once the guest has finished: block_image.py IMAGE BLOCKS.

Every block is zero, or eight sectors of one write, each in its place and whole (guest-images/blk_ledger.cpp); no write
is in two blocks. That each block holds its *last* write only the guest knows, and has checked.
"""

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from proof import MASK, mix  # noqa: E402

SECTOR = 512
SECTORS = 8  # of a block
WORDS = SECTOR // 8


def checksum(words):
    total = mix(mix(words[0] ^ words[1]) ^ words[2])
    for word in words[3:-1]:
        total = ((total ^ word) * 0x100000001B3) & MASK
    return mix(total)


def write_of(block, index):
    """The number of the write that made the block, None for zeros; ValueError for anything else."""
    if not any(block):
        return None
    numbers = set()
    for i in range(SECTORS):
        words = struct.unpack_from(f"<{WORDS}Q", block, i * SECTOR)
        place = index * SECTORS + i
        if words[-1] != checksum(words) or words[1] != place:
            raise ValueError(f"sector {place} is not whole, or of sector {words[1]}")
        numbers.add(words[2])
    if len(numbers) != 1:
        raise ValueError(f"block {index} has sectors of the writes {sorted(numbers)}")
    return numbers.pop()


def writes_in(path, blocks):
    """The numbers of the writes that are in the image, one for each block that is not zero."""
    with open(path, "rb") as image:
        found = [write_of(image.read(SECTOR * SECTORS), index) for index in range(blocks)]
    numbers = [number for number in found if number is not None]
    if len(set(numbers)) != len(numbers):
        raise ValueError("a write is in two blocks")
    return numbers


if __name__ == "__main__":
    print(len(writes_in(sys.argv[1], int(sys.argv[2]))))
