#pragma once

#include <stdint.h>

#include "runtime/abi.h"
#include "runtime/text.hpp"

namespace workload {

// What all CPUs write: a counter by locked additions, and a record behind a ticket lock. The record is wrong
// unless its critical sections exclude one another. Each also compares its TSC with that of the one before:
// within a section it can only be later, whatever CPU that was.
class Shared {
  public:
    // How one CPU takes part: which CPU, and what it has done.
    struct Member {
        uint32_t cpu = 0;
        bool waits = false;  // holds a ticket that has not been called
        uint64_t ticket = 0;
        uint64_t additions = 0;
        uint64_t sections = 0;
    };

    // For that many CPUs. A TSC that is behind by more than `skew` ticks is a fault.
    void start(uint32_t cpus, uint64_t skew);

    void add(Member& member);
    // Takes a ticket, or enters when it has been called; never waits.
    void poll(Member& member);

    // While no CPU is at work: the sums over members must be what is stored here.
    bool verify(uint64_t additions, uint64_t sections, guest::Fields& failure) const;

    uint64_t warps() const { return warps_; }
    uint64_t largest_warp() const { return largest_warp_; }
    // No two TSCs differ by more ticks than this: the shortest handovers of the lock seen in both directions,
    // of the pair for which it is largest. UINT64_MAX: no pair has them yet.
    uint64_t skew_bound() const;

  private:
    static constexpr uint64_t kWords = 6;

    struct Record {
        uint64_t sequence;
        uint64_t cpu;
        uint64_t tsc;
        uint64_t words[kWords];
        uint64_t checksum;
    };

    void enter(Member& member);
    void compare_tsc(uint32_t cpu, uint64_t now);
    uint64_t* shortest(uint32_t from, uint32_t to) const { return &shortest_[from * cpus_ + to]; }
    static uint64_t checksum(const Record& record);

    alignas(64) uint64_t total_ = 0;
    alignas(64) uint64_t next_ticket_ = 0;
    alignas(64) uint64_t called_ = 0;
    alignas(64) Record record_ = {};
    uint64_t warps_ = 0;
    uint64_t largest_warp_ = 0;
    uint64_t* shortest_ = nullptr;
    uint32_t cpus_ = 0;
    uint64_t skew_ = 0;
};

}  // namespace workload
