// Bitmap: one bit per page, in words of 64 as KVM's dirty log has them. Bits past size() are always zero.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/base/check.hpp"

namespace vmm {

class Bitmap {
  public:
    static constexpr std::size_t kWordBits = 64;

    Bitmap() = default;
    explicit Bitmap(std::size_t bits) : bits_(bits), words_((bits + kWordBits - 1) / kWordBits) {}

    std::size_t size() const { return bits_; }
    std::span<const std::uint64_t> words() const { return words_; }

    bool test(std::size_t bit) const;
    void set(std::size_t bit);
    void clear(std::size_t bit);

    // Half-open ranges [first, first + count); the whole range must lie inside.
    void set_range(std::size_t first, std::size_t count);
    void clear_range(std::size_t first, std::size_t count);
    std::size_t count() const;
    std::size_t count_range(std::size_t first, std::size_t count) const;
    bool any_in_range(std::size_t first, std::size_t count) const;

    // Union. Both must be of one size: joining unequal lengths silently loses a tail.
    void merge(const Bitmap& other);
    // Union with raw words whose bit 0 is our bit `first_bit` (a multiple of 64); bits past size() are
    // dropped.
    void merge_words(std::size_t first_bit, std::span<const std::uint64_t> words);

    struct Run {
        std::size_t first = 0;
        std::size_t count = 0;  // 0: no further run
    };
    // The first run of set bits in [from, end).
    Run next_run(std::size_t from, std::size_t end) const;

    // Calls f(first, count) for each run of set bits in [from, end), in order.
    template <typename F>
    void for_each_run(std::size_t from, std::size_t end, F&& f) const {
        for (Run run = next_run(from, end); run.count != 0; run = next_run(run.first + run.count, end)) {
            f(run.first, run.count);
        }
    }

  private:
    // Calls f(word index, mask) for each word that the range touches.
    template <typename F>
    static void for_each_word(std::size_t first, std::size_t count, F&& f) {
        const std::size_t end = first + count;
        while (first < end) {
            const std::size_t offset = first % kWordBits;
            const std::size_t take = std::min(kWordBits - offset, end - first);
            const std::uint64_t ones = take == kWordBits ? ~std::uint64_t{0} : (std::uint64_t{1} << take) - 1;
            f(first / kWordBits, ones << offset);
            first += take;
        }
    }

    std::size_t bits_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace vmm
