#include "smp_shared.hpp"

#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/memory.hpp"
#include "runtime/splitmix.hpp"

namespace workload {

using guest::Fields;

void Shared::start(uint32_t cpus, uint64_t skew) {
    cpus_ = cpus;
    skew_ = skew;
    const uint64_t pairs = uint64_t{cpus} * cpus;
    shortest_ = static_cast<uint64_t*>(guest::memory().take_contiguous(pairs * sizeof(uint64_t)));
    for (uint64_t i = 0; i < pairs; ++i) {
        shortest_[i] = UINT64_MAX;
    }
    record_.tsc = guest::rdtsc();
    record_.checksum = checksum(record_);
}

void Shared::add(Member& member) {
    __atomic_fetch_add(&total_, 1, __ATOMIC_RELAXED);
    ++member.additions;
}

void Shared::poll(Member& member) {
    if (!member.waits) {
        member.ticket = __atomic_fetch_add(&next_ticket_, 1, __ATOMIC_RELAXED);
        member.waits = true;
    }
    if (__atomic_load_n(&called_, __ATOMIC_ACQUIRE) != member.ticket) {
        return;
    }
    enter(member);
    member.waits = false;
    __atomic_store_n(&called_, member.ticket + 1, __ATOMIC_RELEASE);
}

// Volatile: every word is read and written in memory, one after the other, so that a second CPU in here
// shows.
void Shared::enter(Member& member) {
    volatile Record& record = record_;
    Record seen;
    seen.sequence = record.sequence;
    seen.cpu = record.cpu;
    seen.tsc = record.tsc;
    for (uint64_t i = 0; i < kWords; ++i) {
        seen.words[i] = record.words[i];
    }
    if (record.checksum != checksum(seen) || seen.sequence != member.ticket) {
        guest::fail(Fields()
                        .text("reason", "bad_critical_section")
                        .number("cpu", member.cpu)
                        .number("last_cpu", seen.cpu)
                        .number("sequence", seen.sequence)
                        .number("ticket", member.ticket));
    }
    const uint64_t now = guest::rdtsc();
    compare_tsc(member.cpu, now);
    ++seen.sequence;
    seen.cpu = member.cpu;
    seen.tsc = now;
    record.sequence = seen.sequence;
    record.cpu = seen.cpu;
    record.tsc = seen.tsc;
    for (uint64_t i = 0; i < kWords; ++i) {
        seen.words[i] = guest::mix(seen.words[i] + seen.sequence + i);
        record.words[i] = seen.words[i];
    }
    record.checksum = checksum(seen);
    ++member.sections;
}

void Shared::compare_tsc(uint32_t cpu, uint64_t now) {
    if (now < record_.tsc) {
        const uint64_t warp = record_.tsc - now;
        ++warps_;
        largest_warp_ = warp > largest_warp_ ? warp : largest_warp_;
        if (warp > skew_) {
            guest::fail(Fields()
                            .text("reason", "tsc_skew")
                            .number("cpu", cpu)
                            .number("behind_cpu", record_.cpu)
                            .number("ticks", warp));
        }
        return;
    }
    uint64_t& shortest_here = *shortest(static_cast<uint32_t>(record_.cpu), cpu);
    const uint64_t handover = now - record_.tsc;
    shortest_here = handover < shortest_here ? handover : shortest_here;
}

uint64_t Shared::checksum(const Record& record) {
    uint64_t sum = guest::mix(record.sequence) + guest::mix(record.cpu + record.tsc);
    for (const uint64_t word : record.words) {
        sum = guest::mix(sum ^ word);
    }
    return sum;
}

bool Shared::verify(uint64_t additions, uint64_t sections, Fields& failure) const {
    if (total_ != additions) {
        failure.text("reason", "lost_additions").number("want", additions).number("got", total_);
        return false;
    }
    if (record_.sequence != sections || called_ != sections || next_ticket_ != sections) {
        failure.text("reason", "lost_sections").number("want", sections).number("got", record_.sequence);
        failure.number("called", called_).number("next_ticket", next_ticket_);
        return false;
    }
    return true;
}

uint64_t Shared::skew_bound() const {
    uint64_t bound = 0;
    bool found = false;
    for (uint32_t a = 0; a < cpus_; ++a) {
        for (uint32_t b = a + 1; b < cpus_; ++b) {
            const uint64_t there = *shortest(a, b);
            const uint64_t back = *shortest(b, a);
            if (there == UINT64_MAX || back == UINT64_MAX) {
                continue;
            }
            const uint64_t larger = there > back ? there : back;
            bound = larger > bound ? larger : bound;
            found = true;
        }
    }
    return found ? bound : UINT64_MAX;
}

}  // namespace workload
