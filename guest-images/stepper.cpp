// Bumps a counter in every page of the working set, in order, for ever. At any instant pages before
// the cursor hold n+1 and pages from it on hold n; after each pass every word of every page is verified.
//
// In pass n a page gets n in its first and last word, and in one word between that moves on by one with
// each pass; the words between also depend on the page, so that swapped pages are found too.

#include "runtime/clock.hpp"
#include "runtime/guest.hpp"
#include "runtime/memory.hpp"
#include "runtime/splitmix.hpp"

namespace workload {

extern "C" const char workload_name[] = "stepper";

namespace {

using guest::Fields;
using guest::Page;

constexpr uint64_t kBatch = 16;
constexpr uint64_t kLastWord = guest::kWordsPerPage - 1;
constexpr uint64_t kMovingWords = guest::kWordsPerPage - 2;

constinit guest::Pages pages;
constinit uint64_t passes = 0;
constinit uint64_t verified_passes = 0;
constinit uint64_t cursor = 0;  // the next page to bump or to verify
constinit bool verifying = false;

uint64_t mark_of(uint64_t page, uint64_t pass) {
    return guest::mix(page + 1) + pass;
}

uint64_t moving_word(uint64_t pass) {
    return 1 + pass % kMovingWords;
}

void bump(uint64_t index, uint64_t pass) {
    Page& page = pages[index];
    page.words[0] = pass;
    page.words[moving_word(pass)] = mark_of(index, pass);
    page.words[kLastWord] = pass;
}

uint64_t wanted_word(uint64_t page, uint64_t pass, uint64_t word) {
    if (word == 0 || word == kLastWord) {
        return pass;
    }
    const uint64_t age = (moving_word(pass) + kMovingWords - word) % kMovingWords;
    return mark_of(page, age < pass ? pass - age : 0);
}

bool verify_page(uint64_t index, uint64_t pass, Fields& failure) {
    const Page& page = pages[index];
    for (uint64_t word = 0; word < guest::kWordsPerPage; ++word) {
        const uint64_t want = wanted_word(index, pass, word);
        if (page.words[word] != want) {
            failure.text("reason", "bad_page").number("page", index).number("word", word);
            failure.hex("gpa", reinterpret_cast<uint64_t>(&page)).hex("want", want);
            failure.hex("got", page.words[word]).number("pass", pass);
            return false;
        }
    }
    return true;
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    const uint64_t ws_mib = parameters.number("ws", 16);
    if (ws_mib == 0) {
        guest::fail(Fields().text("reason", "bad_parameter").number("ws", ws_mib));
    }
    pages = guest::memory().take(ws_mib * ((1 << 20) / guest::kPageSize));
    for (uint64_t i = 0; i < pages.count(); ++i) {
        for (uint64_t word = 0; word < guest::kWordsPerPage; ++word) {
            pages[i].words[word] = wanted_word(i, 0, word);
        }
    }
    ready.number("ws", ws_mib).number("pages", pages.count());
}

void step() {
    Fields failure;
    for (uint64_t i = 0; i < kBatch; ++i) {
        if (!verifying) {
            bump(cursor, passes + 1);
        } else if (!verify_page(cursor, passes, failure)) {
            guest::fail(failure);
        }
        if (++cursor == pages.count()) {
            cursor = 0;
            (verifying ? verified_passes : passes) += 1;
            verifying = !verifying;
        }
    }
}

void report(Fields& fields) {
    fields.number("passes", passes).number("verified_passes", verified_passes);
    fields.number("at_page", cursor).text("phase", verifying ? "verify" : "bump");
}

bool verify(Fields& failure) {
    for (uint64_t i = 0; i < pages.count(); ++i) {
        const bool bumped = !verifying && i < cursor;
        if (!verify_page(i, bumped ? passes + 1 : passes, failure)) {
            return false;
        }
        guest::watch().beat();
    }
    return true;
}

}  // namespace workload
