// PageReceiver: one stream's pages, checked and read straight into guest memory, then hashed from there.
#pragma once

#include "migration/message_stream.hpp"
#include "migration/page_table.hpp"
#include "vmm/guest/memory.hpp"

namespace migration {

class PageReceiver {
  public:
    // `stream` of `streams`: only pages of its own chunks are accepted. References must outlive the receiver.
    PageReceiver(std::uint16_t stream, std::uint16_t streams, const vmm::GuestMemory& memory,
                 PageTable& table)
        : stream_(stream), streams_(streams), memory_(memory), table_(table) {}

    // Takes the payload of `pages` from `from` and places it. Everything is checked before the first byte
    // lands.
    vmm::Result<void> place(const Pages& pages, std::size_t payload_bytes, MessageStream& from);

    // Sum over the pages of this stream's chunks.
    const Digest& digest_part() const { return part_; }

  private:
    vmm::Result<void> check(const Pages& pages, std::size_t payload_bytes) const;

    std::uint16_t stream_;
    std::uint16_t streams_;
    const vmm::GuestMemory& memory_;
    PageTable& table_;
    Digest part_;
};

}  // namespace migration
