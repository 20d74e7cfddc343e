// Dirties memory at a chosen rate and pattern, and can verify every word of it at any time.
//
// A page is 64 lines of 8 words. Generation 0 fills it all. Generation g rewrites line 0 and one line
// that moves on by one with each generation, so what any word must hold follows from (seed, page, g) and
// from the last generation that zeroed the page; these two numbers are kept apart from the data.
//
// With several CPUs each writes every cpus-th page, so that neighbours are dirtied at the same time.

#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/cpus.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"
#include "runtime/memory.hpp"
#include "runtime/serial.hpp"
#include "runtime/shift.hpp"
#include "runtime/splitmix.hpp"

namespace workload {

extern "C" const char workload_name[] = "dirty";

namespace {

using guest::Fields;
using guest::Page;

constexpr uint64_t kPagesPerMib = (1 << 20) / guest::kPageSize;
constexpr uint64_t kWordsPerLine = 8;
constexpr uint64_t kMovingLines = guest::kWordsPerPage / kWordsPerLine - 1;
constexpr uint64_t kBatch = 16;

struct Version {
    uint32_t generation;
    uint32_t zeroed;  // the generation that zeroed the page, 0 = none did
};

enum class Pattern { sequential, random, hot_cold };

constinit guest::Pages pages;
constinit Version* versions = nullptr;
constinit uint64_t seed = 0;
constinit Pattern pattern = Pattern::sequential;
constinit uint64_t zero_percent = 0;
constinit uint64_t same_percent = 0;

constinit bool unlimited = false;
constinit bool sleeps = false;    // between looks at the clock, until a timer interrupt
constinit uint64_t interval = 0;  // TSC ticks between writes of one CPU, 0 = no writes

struct alignas(64) Writer {
    uint64_t cpu = 0;
    uint64_t working_set = 0;  // pages of its own; they are numbered from 0
    guest::SplitMix choice{0};
    uint64_t cursor = 0;
    uint64_t next_write = 0;
    uint64_t writes = 0;  // all, including zero_writes and same_writes
    uint64_t zero_writes = 0;
    uint64_t same_writes = 0;
};

constinit uint32_t cpus = 1;
constinit Writer writers[MAX_CPUS];
constinit guest::Shift shift;
constinit uint64_t reported_writes = 0;
constinit uint64_t reported_at = 0;

uint64_t key_of(uint64_t page, uint64_t generation) {
    return guest::mix(seed + (page << 32) + generation);
}

uint64_t word_of(uint64_t key, uint64_t index) {
    return guest::mix(key + (index + 1) * guest::kGoldenRatio);
}

uint64_t moving_line(uint64_t page, uint64_t generation) {
    return 1 + (page + generation) % kMovingLines;
}

// The newest generation up to `generation` that wrote the line; 0 is the fill.
uint64_t last_writer(uint64_t page, uint64_t generation, uint64_t line) {
    if (line == 0) {
        return generation;
    }
    const uint64_t age = (moving_line(page, generation) + kMovingLines - line) % kMovingLines;
    return age < generation ? generation - age : 0;
}

void write_line(Page& page, uint64_t line, uint64_t key) {
    for (uint64_t i = line * kWordsPerLine; i < (line + 1) * kWordsPerLine; ++i) {
        page.words[i] = word_of(key, i);
    }
}

void fill() {
    for (uint64_t i = 0; i < pages.count(); ++i) {
        const uint64_t key = key_of(i, 0);
        Page& page = pages[i];
        for (uint64_t w = 0; w < guest::kWordsPerPage; ++w) {
            page.words[w] = word_of(key, w);
        }
    }
}

void write_page(Writer& writer, uint64_t own_page) {
    const uint64_t index = own_page * cpus + writer.cpu;
    Page& page = pages[index];
    Version& version = versions[index];
    ++writer.writes;
    const uint64_t percent = same_percent + zero_percent == 0 ? 100 : writer.choice.below(100);
    if (percent < same_percent) {
        volatile uint64_t* words = page.words;
        for (uint64_t i = 0; i < kWordsPerLine; ++i) {
            words[i] = words[i];
        }
        ++writer.same_writes;
        return;
    }
    ++version.generation;
    if (percent < same_percent + zero_percent) {
        for (uint64_t& word : page.words) {
            word = 0;
        }
        version.zeroed = version.generation;
        ++writer.zero_writes;
        return;
    }
    const uint64_t key = key_of(index, version.generation);
    write_line(page, 0, key);
    write_line(page, moving_line(index, version.generation), key);
}

uint64_t next_page(Writer& writer) {
    const uint64_t pages_of_it = writer.working_set;
    switch (pattern) {
        case Pattern::random:
            return writer.choice.below(pages_of_it);
        case Pattern::hot_cold: {
            const uint64_t hot = pages_of_it < 10 ? 1 : pages_of_it / 10;
            return writer.choice.below(writer.choice.below(10) != 0 ? hot : pages_of_it);
        }
        case Pattern::sequential:
            break;
    }
    writer.cursor = writer.cursor + 1 == pages_of_it ? 0 : writer.cursor + 1;
    return writer.cursor;
}

void write_what_is_due(Writer& writer, uint64_t now) {
    if (unlimited) {
        for (uint64_t i = 0; i < kBatch; ++i) {
            write_page(writer, next_page(writer));
        }
        return;
    }
    // After a pause the rate goes on from now: a burst of what was missed is nobody's workload.
    const uint64_t forgiven = guest::tsc_from_us(10000);
    if (now > writer.next_write + forgiven) {
        writer.next_write = now;
    }
    for (uint64_t i = 0; i < kBatch && interval != 0 && writer.next_write <= now; ++i) {
        write_page(writer, next_page(writer));
        writer.next_write += interval;
    }
}

void work(guest::Cpu& cpu) {
    for (;;) {
        if (shift.is_on()) {
            write_what_is_due(writers[cpu.index], guest::rdtsc());
        } else {
            shift.rest(cpu.index);
        }
        guest::relax();
    }
}

struct Sums {
    uint64_t writes = 0;
    uint64_t zero_writes = 0;
    uint64_t same_writes = 0;
};

Sums sums() {
    Sums result;
    for (uint32_t i = 0; i < cpus; ++i) {
        result.writes += writers[i].writes;
        result.zero_writes += writers[i].zero_writes;
        result.same_writes += writers[i].same_writes;
    }
    return result;
}

// Compares one page, word by word, with what it must hold.
bool verify_page(uint64_t index, Fields& failure) {
    const Page& page = pages[index];
    const Version version = versions[index];
    for (uint64_t line = 0; line <= kMovingLines; ++line) {
        const uint64_t writer = last_writer(index, version.generation, line);
        const bool zero = version.zeroed != 0 && writer <= version.zeroed;
        const uint64_t key = key_of(index, writer);
        for (uint64_t i = line * kWordsPerLine; i < (line + 1) * kWordsPerLine; ++i) {
            const uint64_t want = zero ? 0 : word_of(key, i);
            if (page.words[i] != want) {
                failure.text("reason", "bad_page").number("page", index).number("word", i);
                failure.hex("gpa", reinterpret_cast<uint64_t>(&page)).hex("want", want);
                failure.hex("got", page.words[i]).number("generation", version.generation);
                return false;
            }
        }
    }
    return true;
}

Pattern parse_pattern(const char* text) {
    if (guest::equal(text, "seq")) {
        return Pattern::sequential;
    }
    if (guest::equal(text, "random")) {
        return Pattern::random;
    }
    if (guest::equal(text, "hotcold")) {
        return Pattern::hot_cold;
    }
    guest::fail(Fields().text("reason", "bad_parameter").text("pattern", text));
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    const uint64_t fill_mib = parameters.number("fill", 16);
    const uint64_t ws_mib = parameters.number("ws", fill_mib);
    const char* pps = parameters.word("pps", "1000");
    const char* pattern_name = parameters.word("pattern", "seq");
    seed = parameters.number("seed", 1);
    zero_percent = parameters.number("zero", 0);
    same_percent = parameters.number("same", 0);
    pattern = parse_pattern(pattern_name);
    unlimited = guest::equal(pps, "max");
    const uint64_t rate = unlimited ? 0 : parameters.number("pps", 1000);
    const uint64_t wanted_cpus = parameters.number("cpus", 1);
    interval = rate == 0 ? 0 : guest::tsc_khz() * 1000 * wanted_cpus / rate;
    if (fill_mib == 0 || ws_mib == 0 || ws_mib > fill_mib || zero_percent + same_percent > 100 ||
        wanted_cpus == 0 || wanted_cpus > MAX_CPUS) {
        guest::fail(Fields()
                        .text("reason", "bad_parameter")
                        .number("fill", fill_mib)
                        .number("ws", ws_mib)
                        .number("cpus", wanted_cpus));
    }

    cpus = static_cast<uint32_t>(wanted_cpus);
    for (uint32_t i = 0; i < cpus; ++i) {
        writers[i].cpu = i;
        writers[i].working_set = ws_mib * kPagesPerMib / cpus;
        writers[i].choice = guest::SplitMix(seed + i);
    }
    versions =
        static_cast<Version*>(guest::memory().take_contiguous(fill_mib * kPagesPerMib * sizeof(Version)));
    pages = guest::memory().take(fill_mib * kPagesPerMib);
    fill();
    guest::start_cpus(cpus, work);
    if (const uint64_t hz = parameters.number("sleep_hz", 0); hz != 0) {
        guest::start_periodic_timer(hz);
        sleeps = true;
    }
    shift.begin();
    ready.number("fill", fill_mib).number("ws", ws_mib).text("pps", pps).text("pattern", pattern_name);
    ready.number("zero", zero_percent).number("same", same_percent).number("seed", seed);
    ready.number("cpus", cpus);
}

void step() {
    write_what_is_due(writers[0], guest::watch().now());
    if (sleeps && !guest::serial::busy()) {
        guest::halt();
    }
}

void report(Fields& fields) {
    const uint64_t now = guest::watch().elapsed();
    const uint64_t us = guest::us_from_tsc(now - reported_at);
    const Sums all = sums();
    fields.number("writes", all.writes).number("zero_writes", all.zero_writes);
    fields.number("same_writes", all.same_writes);
    // The rate since the previous report.
    fields.number("pps", us == 0 ? 0 : (all.writes - reported_writes) * 1000000 / us);
    reported_writes = all.writes;
    reported_at = now;
}

bool verify(Fields& failure) {
    shift.end();
    for (uint32_t i = 1; i < cpus; ++i) {
        while (!shift.rests(i)) {
            guest::watch().beat();
        }
    }
    uint64_t generations = 0;
    for (uint64_t i = 0; i < pages.count(); ++i) {
        if (!verify_page(i, failure)) {
            return false;
        }
        generations += versions[i].generation;
        guest::watch().beat();
    }
    // A page and its version that went back together are consistent; the sum then is not.
    const Sums all = sums();
    if (generations != all.writes - all.same_writes) {
        failure.text("reason", "lost_writes").number("want", all.writes - all.same_writes);
        failure.number("got", generations);
        return false;
    }
    shift.begin();
    return true;
}

}  // namespace workload
