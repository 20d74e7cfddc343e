#!/usr/bin/env python3
"""The hash a guest prints for `proof` after `mark SEED`; see guest-images/README.md."""

import sys

MASK = (1 << 64) - 1
GOLDEN_RATIO = 0x9E3779B97F4A7C15


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def page_words(seed, page):
    state = mix((seed + page) & MASK)
    for _ in range(512):
        state = (state + GOLDEN_RATIO) & MASK
        yield mix(state)


def proof_hash(seed, pages=64):
    result = 0xCBF29CE484222325
    for page in range(pages):
        for word in page_words(seed, page):
            result = ((result ^ word) * 0x100000001B3) & MASK
    return result


if __name__ == "__main__":
    print(hex(proof_hash(int(sys.argv[1], 16))))
