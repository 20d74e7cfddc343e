// Rewrites pages at a rate and can verify every word of them. What a page must hold follows from its number
// and from how often it was written, and that is kept apart from the data.

#include <mutex>
#include <thread>
#include <vector>

#include "runtime/guest.hpp"
#include "runtime/splitmix.hpp"
#include "service.hpp"

namespace selfcheck {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kPagesPerMib = (1 << 20) / kPageBytes;

struct alignas(kPageBytes) Page {
    uint64_t words[kPageBytes / sizeof(uint64_t)];
};

class Memory : public Service {
  public:
    void start(const guest::Parameters& parameters, guest::Fields& ready) override {
        const uint64_t mib = parameters.number("godwit.mem", 16);
        pages_per_second_ = parameters.number("godwit.pps", 1000);
        seed_ = parameters.number("godwit.seed", 1);
        ready.number("mem", mib).number("pps", pages_per_second_);
        pages_.resize(mib * kPagesPerMib);
        generations_.resize(pages_.size());
        for (std::size_t page = 0; page < pages_.size(); ++page) {
            fill(page);
        }
        if (!pages_.empty() && pages_per_second_ != 0) {
            std::thread([this] { run(); }).detach();
        }
    }

    void report(guest::Fields& counters) const override {
        const std::lock_guard lock(mutex_);
        counters.number("mem_writes", writes_);
    }

    bool verify(guest::Fields& findings) override {
        const std::lock_guard lock(mutex_);
        uint64_t generations = 0;
        for (std::size_t page = 0; page < pages_.size(); ++page) {
            guest::SplitMix words = words_of(page);
            for (const uint64_t& word : pages_[page].words) {
                const uint64_t want = words.next();
                if (word != want) {
                    findings.text("reason", "bad_page")
                        .number("page", page)
                        .hex("want", want)
                        .hex("got", word);
                    return false;
                }
            }
            generations += generations_[page];
        }
        // A page and its generation that went back together agree; the sum then does not.
        if (generations != writes_) {
            findings.text("reason", "lost_writes").number("want", writes_).number("got", generations);
            return false;
        }
        return true;
    }

  private:
    guest::SplitMix words_of(std::size_t page) const {
        return guest::SplitMix(guest::mix(seed_ + (uint64_t{page} << 32) + generations_[page]));
    }

    void fill(std::size_t page) {
        guest::SplitMix words = words_of(page);
        for (uint64_t& word : pages_[page].words) {
            word = words.next();
        }
    }

    void run() {
        // After a pause the rate goes on from now: a burst of what was missed is nobody's workload.
        constexpr auto kSlice = std::chrono::milliseconds(10);
        guest::SplitMix choice(seed_);
        uint64_t owed = 0;  // hundredths of a page
        for (;;) {
            std::this_thread::sleep_for(kSlice);
            const std::lock_guard lock(mutex_);
            for (owed += pages_per_second_; owed >= 100; owed -= 100) {
                const std::size_t page = choice.below(pages_.size());
                ++generations_[page];
                ++writes_;
                fill(page);
            }
        }
    }

    uint64_t pages_per_second_ = 0;
    uint64_t seed_ = 0;
    mutable std::mutex mutex_;  // all below
    std::vector<Page> pages_;
    std::vector<uint64_t> generations_;  // how often each page was written
    uint64_t writes_ = 0;
};

}  // namespace

std::unique_ptr<Service> make_memory() {
    return std::make_unique<Memory>();
}

}  // namespace selfcheck
