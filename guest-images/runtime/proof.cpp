#include "runtime/proof.hpp"

#include "runtime/clock.hpp"
#include "runtime/memory.hpp"
#include "runtime/splitmix.hpp"

namespace guest::proof {
namespace {

constexpr uint64_t kFnvOffset = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

alignas(kPageSize) constinit Page area[kPages] = {};
constinit uint64_t marked_seed = 0;
constinit bool is_marked = false;

SplitMix words_of(uint64_t seed, uint64_t page) {
    return SplitMix(mix(seed + page));
}

}  // namespace

void mark(uint64_t seed) {
    for (uint64_t page = 0; page < kPages; ++page) {
        SplitMix words = words_of(seed, page);
        for (uint64_t& word : area[page].words) {
            word = words.next();
        }
        watch().beat();
    }
    marked_seed = seed;
    is_marked = true;
}

Result check() {
    Result result{is_marked, true, marked_seed, kFnvOffset};
    for (uint64_t page = 0; page < kPages; ++page) {
        SplitMix words = words_of(marked_seed, page);
        for (const uint64_t& word : area[page].words) {
            result.intact = result.intact && word == words.next();
            result.hash = (result.hash ^ word) * kFnvPrime;
        }
        watch().beat();
    }
    return result;
}

}  // namespace guest::proof
