#pragma once

#include <stdint.h>

#include "blk_device.hpp"
#include "runtime/text.hpp"

namespace workload {

// What each block of the disk must hold. Every sector of a block that was written tells its place, the number
// of the write and a checksum over itself, so that what is found instead of it tells what went wrong.
class BlkLedger {
  public:
    constexpr BlkLedger() = default;

    // The first `blocks` blocks of the disk; nothing is known of them.
    void start(uint64_t blocks, uint64_t seed);

    uint64_t blocks() const { return count_; }

    // One request at a time may be under way for a block.
    bool busy(uint64_t block) const { return blocks_[block].busy; }
    void begin(uint64_t block) { blocks_[block].busy = true; }
    void end_read(uint64_t block) { blocks_[block].busy = false; }

    // Fills a buffer for the next write of a block, and notes it when the disk has confirmed it.
    void fill(uint64_t block, void* buffer);
    void end_write(uint64_t block);
    void end_write_zeroes(uint64_t block);
    // Its content is anything from now on (section 5.2.6.1).
    void end_discard(uint64_t block);

    // A flush covers the changes that were confirmed when it was made available.
    uint64_t changes() const { return changes_; }
    void end_flush(uint64_t changes) { flushed_ = changes > flushed_ ? changes : flushed_; }
    uint64_t flushed() const { return flushed_; }

    // Compares what was read; false names the fault. Of a block of which nothing is known, what is read first
    // must be what is read later.
    bool check(uint64_t block, const void* buffer, guest::Fields& failure);

  private:
    enum class Kind : uint8_t { unknown, seen, discarded, zero, written };

    struct Block {
        uint64_t number;   // of the write, or the hash of what was seen
        uint64_t next;     // of the write under way
        uint64_t changed;  // changes_ after it was confirmed
        Kind kind;
        bool busy;
    };

    void change(uint64_t block, Kind kind, uint64_t number);

    Block* blocks_ = nullptr;
    uint64_t count_ = 0;
    uint64_t seed_ = 0;
    uint64_t writes_ = 0;
    uint64_t changes_ = 0;
    uint64_t flushed_ = 0;
};

}  // namespace workload
