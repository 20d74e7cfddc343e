#include "marked_pages.hpp"

#include "runtime/splitmix.hpp"

namespace selfcheck {
namespace {

guest::SplitMix words_of(uint64_t seed, std::size_t page) {
    return guest::SplitMix(guest::mix(seed + page));
}

}  // namespace

void MarkedPages::mark(uint64_t seed) {
    seed_ = seed;
    pages_.resize(kPages);
    for (std::size_t page = 0; page < kPages; ++page) {
        guest::SplitMix words = words_of(seed, page);
        for (uint64_t& word : pages_[page]) {
            word = words.next();
        }
    }
}

MarkedPages::Proof MarkedPages::proof() const {
    constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
    constexpr uint64_t kFnvPrime = 0x100000001b3;
    Proof result{true, kFnvOffset};
    for (std::size_t page = 0; page < pages_.size(); ++page) {
        guest::SplitMix words = words_of(seed_, page);
        for (const uint64_t word : pages_[page]) {
            result.intact = result.intact && word == words.next();
            result.hash = (result.hash ^ word) * kFnvPrime;
        }
    }
    return result;
}

}  // namespace selfcheck
