#include "migration/page_receiver.hpp"

#include <cstring>

#include "vmm/base/thread.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::kPageSize;
using vmm::Result;

Result<void> PageReceiver::check(const Pages& pages, std::size_t payload_bytes) const {
    std::uint64_t data_pages = 0;
    for (const Extent& extent : pages.extents) {
        if (!memory_.contains({extent.first, extent.count})) {
            return fail(Code::protocol, "pages {}+{} are not RAM of this guest", extent.first, extent.count);
        }
        const std::uint64_t chunk = chunk_of(extent.first);
        if (chunk_of(extent.first + extent.count - 1) != chunk ||
            stream_of_chunk(chunk, streams_) != stream_) {
            return fail(Code::protocol, "pages {}+{} do not belong to stream {}", extent.first, extent.count,
                        stream_);
        }
        data_pages += extent.kind == ExtentKind::data ? extent.count : 0;
    }
    if (data_pages * kPageSize != payload_bytes) {
        return fail(Code::protocol, "{} data pages with a payload of {} bytes", data_pages, payload_bytes);
    }
    return {};
}

Result<void> PageReceiver::place(const Pages& pages, std::size_t payload_bytes, MessageStream& from) {
    TRY(check(pages, payload_bytes));
    std::vector<iovec> parts;
    for (const Extent& extent : pages.extents) {
        const std::span<std::byte> bytes = *memory_.pages({extent.first, extent.count});
        if (extent.kind == ExtentKind::data) {
            parts.push_back(part_of(bytes));
            continue;
        }
        for (std::uint64_t page = extent.first; page < extent.first + extent.count; ++page) {
            // Fresh memory is zero already; touching it would only populate it.
            if (!(table_.entry(page) == Digest{})) {
                std::memset(bytes.data() + (page - extent.first) * kPageSize, 0, kPageSize);
                table_.set(page, {}, part_);
            }
        }
    }
    TRY(from.receive_payload(parts));
    if (payload_bytes == Pages::kMaxDataPages * kPageSize) {
        vmm::yield_cpu();
    }
    for (const Extent& extent : pages.extents) {
        if (extent.kind != ExtentKind::data) {
            continue;
        }
        const std::span<std::byte> bytes = *memory_.pages({extent.first, extent.count});
        for (std::uint64_t i = 0; i < extent.count; ++i) {
            const std::span<std::byte> page = bytes.subspan(i * kPageSize, kPageSize);
            table_.set(extent.first + i, table_.hasher().entry_for(page), part_);
        }
    }
    return {};
}

}  // namespace migration
