#include "migration/page_table.hpp"

#define XXH_STATIC_LINKING_ONLY
#include <xxh_x86dispatch.h>  // AVX2 or AVX-512 where the CPU has them: twice as fast, the same values

#include <cstring>

namespace migration {

PageHasher::PageHasher(const Secret& secret) {
    XXH3_generateSecret(key_.data(), key_.size(), secret.data(), secret.size());
}

Digest PageHasher::hash(std::span<const std::byte> page) const {
    const XXH128_hash_t h = XXH3_128bits_withSecret(page.data(), page.size(), key_.data(), key_.size());
    if (h.low64 == 0 && h.high64 == 0) {
        return {1, 0};
    }
    return {h.low64, h.high64};
}

Digest PageHasher::entry_for(std::span<const std::byte> page) const {
    return is_zero(page) ? Digest{} : hash(page);
}

Digest PageHasher::contribution(std::uint64_t page, const Digest& hash) const {
    const std::array<std::uint64_t, 3> input{page, hash.low, hash.high};
    const XXH128_hash_t h = XXH3_128bits_withSecret(input.data(), sizeof input, key_.data(), key_.size());
    return {h.low64, h.high64};
}

bool is_zero(std::span<const std::byte> page) {
    // Compares the page with itself one word further: memcmp is the fastest scan the C library has.
    const std::byte* data = page.data();
    std::uint64_t first = 0;
    std::memcpy(&first, data, sizeof first);
    return first == 0 && std::memcmp(data, data + sizeof first, page.size() - sizeof first) == 0;
}

Digest add(const Digest& a, const Digest& b) {
    const std::uint64_t low = a.low + b.low;
    return {low, a.high + b.high + (low < a.low ? 1 : 0)};
}

Digest subtract(const Digest& a, const Digest& b) {
    return {a.low - b.low, a.high - b.high - (a.low < b.low ? 1 : 0)};
}

vmm::Result<PageTable> PageTable::create(std::uint64_t pages, const Secret& secret) {
    vmm::Mapping entries =
        TRY(vmm::Mapping::anonymous(pages * sizeof(Digest), vmm::Backing::small).context("page hash table"));
    return PageTable{std::move(entries), pages, secret};
}

Digest PageTable::entry(std::uint64_t page) const {
    VERIFY(page < pages_);
    Digest value;
    std::memcpy(&value, entries_.bytes().data() + page * sizeof value, sizeof value);
    return value;
}

void PageTable::set(std::uint64_t page, const Digest& hash, Digest& part) {
    const Digest old = entry(page);
    if (old == hash) {
        return;
    }
    if (!(old == Digest{})) {
        part = subtract(part, hasher_.contribution(page, old));
    }
    if (!(hash == Digest{})) {
        part = add(part, hasher_.contribution(page, hash));
    }
    std::memcpy(entries_.bytes().data() + page * sizeof hash, &hash, sizeof hash);
}

Digest PageTable::digest() const {
    Digest sum;
    for (std::uint64_t page = 0; page < pages_; ++page) {
        if (const Digest value = entry(page); !(value == Digest{})) {
            sum = add(sum, hasher_.contribution(page, value));
        }
    }
    return sum;
}

}  // namespace migration
