#include "vmm/base/bitmap.hpp"

namespace vmm {

bool Bitmap::test(std::size_t bit) const {
    VERIFY(bit < bits_);
    return (words_[bit / kWordBits] >> (bit % kWordBits) & 1) != 0;
}

void Bitmap::set(std::size_t bit) {
    VERIFY(bit < bits_);
    words_[bit / kWordBits] |= std::uint64_t{1} << (bit % kWordBits);
}

void Bitmap::clear(std::size_t bit) {
    VERIFY(bit < bits_);
    words_[bit / kWordBits] &= ~(std::uint64_t{1} << (bit % kWordBits));
}

void Bitmap::set_range(std::size_t first, std::size_t count) {
    VERIFY(first <= bits_ && count <= bits_ - first);
    for_each_word(first, count, [&](std::size_t word, std::uint64_t mask) { words_[word] |= mask; });
}

void Bitmap::clear_range(std::size_t first, std::size_t count) {
    VERIFY(first <= bits_ && count <= bits_ - first);
    for_each_word(first, count, [&](std::size_t word, std::uint64_t mask) { words_[word] &= ~mask; });
}

std::size_t Bitmap::count() const {
    // Most words of a dirty bitmap are zero, and without POPCNT, which not every x86-64 has, a word takes 5
    // ns.
    std::size_t total = 0;
    for (const std::uint64_t word : words_) {
        if (word != 0) {
            total += static_cast<std::size_t>(std::popcount(word));
        }
    }
    return total;
}

std::size_t Bitmap::count_range(std::size_t first, std::size_t count) const {
    VERIFY(first <= bits_ && count <= bits_ - first);
    std::size_t total = 0;
    for_each_word(first, count, [&](std::size_t word, std::uint64_t mask) {
        total += static_cast<std::size_t>(std::popcount(words_[word] & mask));
    });
    return total;
}

bool Bitmap::any_in_range(std::size_t first, std::size_t count) const {
    VERIFY(first <= bits_ && count <= bits_ - first);
    return next_run(first, first + count).count != 0;
}

void Bitmap::merge(const Bitmap& other) {
    VERIFY(other.bits_ == bits_);
    for (std::size_t i = 0; i < words_.size(); ++i) {
        words_[i] |= other.words_[i];
    }
}

void Bitmap::merge_words(std::size_t first_bit, std::span<const std::uint64_t> words) {
    VERIFY(first_bit % kWordBits == 0);
    const std::size_t at = first_bit / kWordBits;
    for (std::size_t i = 0; i < words.size() && at + i < words_.size(); ++i) {
        if (words[i] != 0) {
            words_[at + i] |= words[i];
        }
    }
    const std::size_t tail = bits_ % kWordBits;
    if (tail != 0) {
        words_.back() &= (std::uint64_t{1} << tail) - 1;
    }
}

Bitmap::Run Bitmap::next_run(std::size_t from, std::size_t end) const {
    VERIFY(end <= bits_);
    if (from >= end) {
        return {};
    }
    // First position at or after `at` whose bit, xor-ed with `flip`, is one; `end` if there is none before
    // it.
    const auto find = [&](std::size_t at, std::uint64_t flip) {
        std::size_t word = at / kWordBits;
        std::uint64_t bits = (words_[word] ^ flip) & (~std::uint64_t{0} << (at % kWordBits));
        while (bits == 0) {
            if (++word * kWordBits >= end) {
                return end;
            }
            bits = words_[word] ^ flip;
        }
        return std::min(end, word * kWordBits + static_cast<std::size_t>(std::countr_zero(bits)));
    };
    const std::size_t first = find(from, 0);
    if (first == end) {
        return {};
    }
    return {first, find(first, ~std::uint64_t{0}) - first};
}

}  // namespace vmm
