// Writes, reads, flushes, discards and zeroes blocks of a virtio disk with several requests in flight, and
// knows at any time what every block must hold (blk_ledger). Whatever it reads it compares.

#include "blk_device.hpp"
#include "blk_ledger.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/cpus.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"
#include "runtime/serial.hpp"

namespace workload {

extern "C" const char workload_name[] = "blkcheck";

namespace {

using guest::Fields;

constexpr uint64_t kTimerHz = 100;
constexpr uint64_t kPatience = 20 * kTimerHz;
constexpr uint32_t kStepRequests = 4;  // in one iteration of the main loop

struct Request {
    BlkType type;
    uint64_t block;
    uint64_t changes;  // of the ledger, when a flush was made available
    bool in_flight;
};

struct Counters {
    uint64_t reads, writes, flushes, discards, zeroes;
};

constinit BlkDevice disk;
constinit BlkLedger ledger;
constinit Request requests[BlkDevice::kMaxSlots] = {};
constinit uint32_t depth = 0;
constinit uint64_t flush_every = 0;
constinit guest::SplitMix choice(0);
constinit Counters counters = {};
constinit uint64_t flush_submitted_at = 0;

uint32_t free_slot() {
    uint32_t slot = 0;
    while (slot < depth && requests[slot].in_flight) {
        ++slot;
    }
    return slot;
}

void submit(uint32_t slot, BlkType type, uint64_t block) {
    requests[slot] = {type, block, ledger.changes(), true};
    if (type == BlkType::write) {
        ledger.fill(block, disk.data(slot));
    }
    if (type != BlkType::flush) {
        ledger.begin(block);
    }
    disk.submit(slot, type, block * kBlockSectors);
}

void complete(uint32_t slot) {
    Request& request = requests[slot];
    request.in_flight = false;
    switch (request.type) {
        case BlkType::read:
            ledger.end_read(request.block);
            ++counters.reads;
            if (Fields failure; !ledger.check(request.block, disk.data(slot), failure)) {
                guest::fail(failure);
            }
            break;
        case BlkType::write:
            ledger.end_write(request.block);
            ++counters.writes;
            break;
        case BlkType::write_zeroes:
            ledger.end_write_zeroes(request.block);
            ++counters.zeroes;
            break;
        case BlkType::discard:
            ledger.end_discard(request.block);
            ++counters.discards;
            break;
        case BlkType::flush:
            ledger.end_flush(request.changes);
            ++counters.flushes;
            break;
        case BlkType::get_id:
            break;
    }
}

// Returns how many requests came back.
uint32_t take_completions(uint32_t limit) {
    BlkDevice::Completion completion;
    uint32_t taken = 0;
    while (taken < limit && disk.take(completion)) {
        const Request& request = requests[completion.slot];
        if (completion.status != BlkStatus::ok) {
            guest::fail(Fields()
                            .text("reason", "request_failed")
                            .number("type", static_cast<uint64_t>(request.type))
                            .number("block", request.block)
                            .number("status", static_cast<uint64_t>(completion.status)));
        }
        complete(completion.slot);
        ++taken;
    }
    disk.check_patience(kPatience);
    return taken;
}

BlkType choose_type() {
    const uint64_t percent = choice.below(100);
    if (disk.read_only() || percent < 35) {
        return BlkType::read;
    }
    if (percent < 40 && disk.can_discard()) {
        return BlkType::discard;
    }
    if (percent < 45 && disk.can_write_zeroes()) {
        return BlkType::write_zeroes;
    }
    return BlkType::write;
}

void submit_one(uint32_t slot) {
    if (disk.can_flush() && ledger.changes() - flush_submitted_at >= flush_every) {
        flush_submitted_at = ledger.changes();
        submit(slot, BlkType::flush, 0);
        return;
    }
    const uint64_t block = choice.below(ledger.blocks());
    if (!ledger.busy(block)) {
        submit(slot, choose_type(), block);
    }
}

void drain() {
    while (disk.queue().in_flight() != 0) {
        take_completions(depth);
        guest::watch().beat();
    }
}

// Submits one request of that type for each block, in order, and waits for all.
void sweep(BlkType type) {
    for (uint64_t block = 0; block < ledger.blocks(); ++block) {
        while (free_slot() == depth) {
            disk.notify();
            take_completions(depth);
            guest::watch().beat();
        }
        submit(free_slot(), type, block);
    }
    disk.notify();
    drain();
}

// A request that is not in the ledger, waited for.
BlkStatus ask(BlkType type, uint64_t sector) {
    disk.submit(0, type, sector);
    disk.notify();
    BlkDevice::Completion completion;
    while (!disk.take(completion)) {
        disk.check_patience(kPatience);
    }
    return completion.status;
}

// What a device must refuse, it refuses and goes on (section 5.2.6.2).
void check_refusals() {
    const BlkStatus beyond = ask(BlkType::read, disk.sectors());
    const BlkStatus unknown = ask(static_cast<BlkType>(0x7777), 0);
    const bool may_write = !disk.read_only() || ask(BlkType::write, 0) == BlkStatus::ok;
    if (beyond != BlkStatus::io_error || unknown != BlkStatus::unsupported || may_write == disk.read_only()) {
        guest::fail(Fields()
                        .text("reason", "not_refused")
                        .number("beyond_the_end", static_cast<uint64_t>(beyond))
                        .number("unknown_type", static_cast<uint64_t>(unknown))
                        .number("write", may_write ? 1 : 0));
    }
}

void add_id(Fields& ready) {
    if (ask(BlkType::get_id, 0) != BlkStatus::ok) {
        guest::fail(Fields().text("reason", "no_id"));
    }
    constexpr uint32_t kIdBytes = 20;
    char id[kIdBytes + 1] = {};
    const auto* bytes = static_cast<const char*>(disk.data(0));
    for (uint32_t i = 0; i < kIdBytes && bytes[i] != '\0'; ++i) {
        id[i] = bytes[i] > ' ' && bytes[i] <= '~' ? bytes[i] : '_';
    }
    ready.text("id", id);
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    const uint64_t mib = parameters.number("area", 4);
    const uint64_t wanted_depth = parameters.number("depth", 8);
    const uint64_t seed = parameters.number("seed", 1);
    flush_every = parameters.number("flush_every", 64);
    choice = guest::SplitMix(seed);
    if (wanted_depth < 1 || wanted_depth > BlkDevice::kMaxSlots || flush_every == 0) {
        guest::fail(Fields().text("reason", "bad_parameter").number("depth", wanted_depth));
    }
    depth = static_cast<uint32_t>(wanted_depth);
    guest::start_periodic_timer(kTimerHz);
    disk.start(parameters, depth);
    if (depth > disk.most_in_flight()) {
        guest::fail(Fields()
                        .text("reason", "queue_too_small")
                        .number("depth", depth)
                        .number("most_in_flight", disk.most_in_flight()));
    }
    const uint64_t area_sectors = (mib << 20) / kSectorBytes;
    if (area_sectors == 0 || area_sectors > disk.sectors()) {
        guest::fail(
            Fields().text("reason", "bad_parameter").number("area", mib).number("sectors", disk.sectors()));
    }
    check_refusals();
    add_id(ready);
    ledger.start(area_sectors / kBlockSectors, seed);
    sweep(disk.read_only() ? BlkType::read : BlkType::write);
    ready.number("sectors", disk.sectors()).number("area", mib).number("depth", depth);
    ready.number("qsize", disk.queue().size()).number("flush_every", flush_every);
    ready.number("ro", disk.read_only() ? 1 : 0).number("flush", disk.can_flush() ? 1 : 0);
    ready.number("discard", disk.can_discard() ? 1 : 0);
    ready.number("zeroes", disk.can_write_zeroes() ? 1 : 0);
    disk.device().describe(ready);
}

void step() {
    const uint64_t interrupts = disk.device().interrupts();
    const uint32_t taken = take_completions(kStepRequests);
    uint32_t slot = free_slot();
    for (uint32_t i = 0; i < kStepRequests && slot < depth; ++i) {
        submit_one(slot);
        slot = free_slot();
    }
    disk.notify();
    // With interrupts it sleeps when there is nothing to do but wait, and no output either.
    if (disk.device().uses_interrupts() && taken == 0 && slot == depth && !guest::serial::busy()) {
        guest::halt_while(disk.device().interrupts(), interrupts);
    }
}

void report(Fields& fields) {
    fields.number("reads", counters.reads).number("writes", counters.writes);
    fields.number("flushes", counters.flushes).number("discards", counters.discards);
    fields.number("zeroes", counters.zeroes).number("changes", ledger.changes());
    fields.number("flushed", ledger.flushed()).number("in_flight", disk.queue().in_flight());
    fields.number("interrupts", disk.device().interrupts());
    fields.number("notifications", disk.queue().notifications());
}

// Waits for all requests, flushes, and reads every block back.
bool verify(Fields& findings) {
    drain();
    if (disk.can_flush()) {
        submit(0, BlkType::flush, 0);
        disk.notify();
        drain();
    }
    sweep(BlkType::read);
    disk.device().check_status();
    findings.number("blocks", ledger.blocks());
    return true;
}

}  // namespace workload
