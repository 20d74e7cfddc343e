// Page tables that never rest: the pages behind a window of virtual memory change places all the time, by
// writes to the page table through a page that this table itself maps. What is read and written through the
// window is compared with the pages.

#include "hostile_mode.hpp"
#include "runtime/memory.hpp"
#include "runtime/splitmix.hpp"

namespace hostile {

namespace {

using guest::Fields;
using guest::kPageSize;
using guest::Page;

// Above all RAM that a test gives a guest; nothing else is mapped there.
constexpr uint64_t kWindow = uint64_t{0x7f} << 32;
constexpr uint64_t kFrames = 64;
constexpr uint64_t kSelf = kFrames;     // the slot of the table itself
constexpr uint64_t kPresentUser = 0x7;  // and writable
constexpr uint64_t kFrameMask = 0x000ffffffffff000;

constinit guest::Pages frames;
constinit uint64_t* table = nullptr;
constinit uint64_t order = 1;  // odd: slot i shows frame i * order + shift
constinit uint64_t shift = 0;
constinit uint64_t versions[kFrames] = {};
constinit uint64_t rounds = 0;

uint64_t frame_of(uint64_t slot) {
    return (slot * order + shift) % kFrames;
}

uint64_t address_of(uint64_t frame) {
    return reinterpret_cast<uint64_t>(&frames[frame]);
}

Page& window(uint64_t slot) {
    return reinterpret_cast<Page*>(kWindow)[slot];
}

uint64_t mark(uint64_t frame) {
    return guest::mix(frame + 1) + versions[frame];
}

bool check_slot(uint64_t slot, Fields& findings) {
    const uint64_t frame = frame_of(slot);
    const uint64_t entry = table[slot] & kFrameMask;  // without what the CPU sets: accessed, dirty
    const uint64_t got = window(slot).words[slot];
    const uint64_t direct = frames[frame].words[slot];
    if (entry != address_of(frame) || got != mark(frame) || direct != got) {
        findings.text("reason", "wrong_page").number("slot", slot).number("frame", frame);
        findings.hex("entry", entry).hex("want", mark(frame)).hex("got", got).hex("direct", direct);
        return false;
    }
    return true;
}

void write_slot(uint64_t slot) {
    const uint64_t frame = frame_of(slot);
    ++versions[frame];
    for (uint64_t& word : window(slot).words) {
        word = mark(frame);
    }
}

// The table, written through the window that it maps.
void map_frames() {
    volatile uint64_t* entries = window(kSelf).words;
    for (uint64_t slot = 0; slot < kFrames; ++slot) {
        entries[slot] = address_of(frame_of(slot)) | kPresentUser;
    }
    guest::memory().reload();
}

void start(const guest::Parameters&, Fields& ready) {
    table = static_cast<uint64_t*>(guest::memory().take_contiguous(kPageSize));
    frames = guest::memory().take(kFrames);
    table[kSelf] = reinterpret_cast<uint64_t>(table) | kPresentUser;
    guest::memory().map_table(kWindow, reinterpret_cast<uint64_t>(table));
    map_frames();
    for (uint64_t slot = 0; slot < kFrames; ++slot) {
        write_slot(slot);
    }
    ready.number("frames", kFrames);
}

void step() {
    Fields findings;
    order = (order + 2) % kFrames;
    shift = (shift + 7) % kFrames;
    map_frames();
    for (uint64_t slot = 0; slot < kFrames; ++slot) {
        if (!check_slot(slot, findings)) {
            guest::fail(findings);
        }
    }
    write_slot(rounds++ % kFrames);
}

void report(Fields& fields) {
    fields.number("rounds", rounds);
}

bool verify(Fields& findings) {
    for (uint64_t slot = 0; slot < kFrames; ++slot) {
        if (!check_slot(slot, findings)) {
            return false;
        }
    }
    return true;
}

}  // namespace

const Mode tables_mode{"pagetables", start, step, report, verify};

}  // namespace hostile
