#pragma once

#include <cstdint>

#include "runtime/splitmix.hpp"

namespace selfcheck {

// A block that the disk writer writes; tests/guests/disk_image.py reads them too. All words follow from the
// first three, so that a torn, misplaced or stale block shows. Words are little-endian.
struct alignas(4096) DiskBlock {
    static constexpr uint64_t kMagic = 0x6b736964'7477646f;  // "odwtdisk"
    static constexpr std::size_t kWords = 512;
    static constexpr std::size_t kHeaderWords = 4;

    uint64_t words[kWords];

    // The block that was written `sequence`th, counted from 1, of a disk of `count` blocks: they are written
    // in order, and from the first again after the last.
    void make(uint64_t seed, uint64_t sequence, uint64_t count) {
        words[0] = kMagic;
        words[1] = seed;
        words[2] = sequence;
        words[3] = (sequence - 1) % count;
        guest::SplitMix content(guest::mix(seed + sequence));
        for (std::size_t word = kHeaderWords; word < kWords; ++word) {
            words[word] = content.next();
        }
    }

    bool operator==(const DiskBlock&) const = default;
};

}  // namespace selfcheck
