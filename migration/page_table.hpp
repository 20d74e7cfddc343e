// PageTable: the hash of every page as this side last sent or placed it, and the digest over all of them.
#pragma once

#include <algorithm>
#include <vector>

#include "migration/ids.hpp"
#include "migration/message.hpp"
#include "vmm/base/mapping.hpp"
#include "vmm/guest/address.hpp"

namespace migration {

// The unit of ownership: a chunk belongs to one stream and one worker for the whole migration, and the dirty
// log is cleared chunk by chunk.
inline constexpr std::uint64_t kChunkPages = 4096;

inline std::uint64_t chunk_of(std::uint64_t page) {
    return page / kChunkPages;
}
// With no data connection everything travels on control, as if it were one stream.
inline std::uint16_t stream_of_chunk(std::uint64_t chunk, std::uint16_t streams) {
    return static_cast<std::uint16_t>(chunk % std::max<std::uint16_t>(streams, 1));
}

// XXH3-128 of pages, keyed by the session's secret: a guest cannot craft two pages that collide.
class PageHasher {
  public:
    explicit PageHasher(const Secret& secret);

    // Never {0, 0}: that entry means a zero page. `page` is 4096 bytes.
    Digest hash(std::span<const std::byte> page) const;
    // What the table holds for a page: {0, 0} when it is zero, else its hash.
    Digest entry_for(std::span<const std::byte> page) const;
    // What an entry contributes to the digest.
    Digest contribution(std::uint64_t page, const Digest& hash) const;

  private:
    static constexpr std::size_t kKeyBytes = 192;  // XXH3's default secret size
    std::array<std::uint8_t, kKeyBytes> key_;
};

bool is_zero(std::span<const std::byte> page);

// Modulo 2^128.
Digest add(const Digest& a, const Digest& b);
Digest subtract(const Digest& a, const Digest& b);

// Entries are {0, 0} for pages that are zero at the destination, because they were sent as zero or never
// sent. An entry is read and written only by the owner of its chunk; each owner keeps a DigestPart.
class PageTable {
  public:
    static vmm::Result<PageTable> create(std::uint64_t pages, const Secret& secret);

    const PageHasher& hasher() const { return hasher_; }
    std::uint64_t size() const { return pages_; }
    Digest entry(std::uint64_t page) const;

    // Sets an entry and keeps `part`, the sum of its owner, up to date.
    void set(std::uint64_t page, const Digest& hash, Digest& part);

    // Fresh sum over all entries.
    Digest digest() const;

  private:
    PageTable(vmm::Mapping entries, std::uint64_t pages, const Secret& secret)
        : entries_(std::move(entries)), pages_(pages), hasher_(secret) {}

    vmm::Mapping entries_;  // 16 bytes a page, in memory only where it was written
    std::uint64_t pages_;
    PageHasher hasher_;
};

}  // namespace migration
