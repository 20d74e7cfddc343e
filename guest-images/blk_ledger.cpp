#include "blk_ledger.hpp"

#include "runtime/memory.hpp"
#include "runtime/splitmix.hpp"

namespace workload {
namespace {

using guest::Fields;

constexpr uint64_t kBodyWords = kSectorBytes / sizeof(uint64_t) - 4;

struct Sector {
    uint64_t seed;
    uint64_t place;
    uint64_t number;
    uint64_t body[kBodyWords];
    uint64_t checksum;
};
static_assert(sizeof(Sector) == kSectorBytes);

uint64_t checksum(const Sector& sector) {
    uint64_t sum = sector.seed;
    sum = guest::mix(sum ^ sector.place);
    sum = guest::mix(sum ^ sector.number);
    for (const uint64_t word : sector.body) {
        sum = (sum ^ word) * 0x100000001b3;
    }
    return guest::mix(sum);
}

void fill_sector(Sector& sector, uint64_t seed, uint64_t place, uint64_t number) {
    sector.seed = seed;
    sector.place = place;
    sector.number = number;
    guest::SplitMix words(guest::mix(seed ^ place) + number);
    for (uint64_t& word : sector.body) {
        word = words.next();
    }
    sector.checksum = checksum(sector);
}

uint64_t hash(const void* buffer) {
    const auto* words = static_cast<const uint64_t*>(buffer);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < kBlockBytes / sizeof(uint64_t); ++i) {
        sum = guest::mix(sum ^ words[i]);
    }
    return sum;
}

// The first word that is not zero, or the number of words.
uint64_t first_nonzero(const void* buffer) {
    const auto* words = static_cast<const uint64_t*>(buffer);
    uint64_t i = 0;
    while (i < kBlockBytes / sizeof(uint64_t) && words[i] == 0) {
        ++i;
    }
    return i;
}

const char* fault_of(const Sector& sector, uint64_t seed, uint64_t place, uint64_t number) {
    if (sector.checksum != checksum(sector) || sector.seed != seed) {
        return "bad_sector";  // torn, never written, or another run's
    }
    if (sector.place != place) {
        return "misplaced_sector";
    }
    return sector.number < number ? "lost_write" : "repeated_write";
}

}  // namespace

void BlkLedger::start(uint64_t blocks, uint64_t seed) {
    count_ = blocks;
    seed_ = seed;
    blocks_ = static_cast<Block*>(guest::memory().take_contiguous(blocks * sizeof(Block)));
}

void BlkLedger::fill(uint64_t block, void* buffer) {
    blocks_[block].next = ++writes_;
    auto* sectors = static_cast<Sector*>(buffer);
    for (uint64_t i = 0; i < kBlockSectors; ++i) {
        fill_sector(sectors[i], seed_, block * kBlockSectors + i, writes_);
    }
}

void BlkLedger::change(uint64_t block, Kind kind, uint64_t number) {
    blocks_[block] = {number, 0, ++changes_, kind, false};
}

void BlkLedger::end_write(uint64_t block) {
    change(block, Kind::written, blocks_[block].next);
}

void BlkLedger::end_write_zeroes(uint64_t block) {
    change(block, Kind::zero, 0);
}

void BlkLedger::end_discard(uint64_t block) {
    change(block, Kind::discarded, 0);
}

bool BlkLedger::check(uint64_t index, const void* buffer, Fields& failure) {
    Block& block = blocks_[index];
    const uint64_t flushed = block.changed <= flushed_ ? 1 : 0;
    switch (block.kind) {
        case Kind::discarded:
            return true;
        case Kind::unknown:
            block.kind = Kind::seen;
            block.number = hash(buffer);
            return true;
        case Kind::seen:
            if (hash(buffer) != block.number) {
                failure.text("reason", "unwritten_block_changed").number("block", index);
                return false;
            }
            return true;
        case Kind::zero:
            if (const uint64_t word = first_nonzero(buffer); word != kBlockBytes / sizeof(uint64_t)) {
                failure.text("reason", "not_zero").number("block", index).number("word", word);
                failure.number("flushed", flushed);
                return false;
            }
            return true;
        case Kind::written:
            break;
    }
    const auto* sectors = static_cast<const Sector*>(buffer);
    for (uint64_t i = 0; i < kBlockSectors; ++i) {
        const uint64_t place = index * kBlockSectors + i;
        const Sector& got = sectors[i];
        const bool sound = got.checksum == checksum(got);
        if (!sound || got.seed != seed_ || got.place != place || got.number != block.number) {
            failure.text("reason", fault_of(got, seed_, place, block.number)).number("sector", place);
            failure.number("want_write", block.number).number("got_write", got.number);
            failure.number("got_sector", got.place).number("flushed", flushed);
            return false;
        }
    }
    return true;
}

}  // namespace workload
