#include "devices/virtio/blk_request.hpp"

#include "devices/virtio/disk_image.hpp"

namespace devices::virtio {

using vmm::Result;

namespace {

// 5.2.6: request types.
constexpr std::uint32_t kIn = 0;
constexpr std::uint32_t kOut = 1;
constexpr std::uint32_t kFlush = 4;
constexpr std::uint32_t kGetId = 8;
constexpr std::uint32_t kDiscard = 11;
constexpr std::uint32_t kWriteZeroes = 13;

constexpr std::size_t kRangeBytes = 16;  // struct virtio_blk_discard_write_zeroes
constexpr std::uint32_t kUnmap = 1;      // its flag
constexpr std::uint64_t kStatusBytes = 1;

void refuse(BlkRequest& request, std::uint8_t status) {
    request.kind = BlkRequest::Kind::failed;
    request.status = status;
}

bool on_disk(std::uint64_t sector, std::uint64_t count, const BlkLimits& limits) {
    return sector <= limits.sectors && count <= limits.sectors - sector;
}

void decode_transfer(BlkRequest& request, std::uint64_t sector, std::uint64_t size, const BlkLimits& limits) {
    if (size % kSectorBytes != 0 || size > std::uint64_t{kSegMax} * kSizeMax ||
        !on_disk(sector, size / kSectorBytes, limits) ||
        (request.kind == BlkRequest::Kind::write && limits.read_only)) {
        refuse(request, kBlkIoError);
        return;
    }
    request.offset = sector * kSectorBytes;
    request.size = size;
}

// 5.2.6.2: we offer one range a request.
void decode_range(BlkRequest& request, const vmm::GuestMemory& memory, const BlkLimits& limits) {
    std::array<std::byte, kRangeBytes> raw{};
    if (request.chain.readable.size() != BlkRequest::kHeaderBytes + kRangeBytes) {
        refuse(request, kBlkUnsupported);
        return;
    }
    request.chain.readable.read(memory, BlkRequest::kHeaderBytes, raw);
    const auto sector = vmm::load_le<std::uint64_t>(raw.data());
    const auto count = vmm::load_le<std::uint32_t>(raw.data() + 8);
    const auto flags = vmm::load_le<std::uint32_t>(raw.data() + 12);
    const bool zeroes = request.kind == BlkRequest::Kind::write_zeroes;
    const std::uint32_t known = zeroes ? kUnmap : 0;
    const std::uint32_t most = zeroes ? kMaxZeroSectors : kMaxDiscardSectors;
    if ((flags & ~known) != 0) {
        refuse(request, kBlkUnsupported);
    } else if (limits.read_only || count > most || !on_disk(sector, count, limits)) {
        refuse(request, kBlkIoError);
    } else {
        request.offset = sector * kSectorBytes;
        request.size = count * kSectorBytes;
        request.unmap = (flags & kUnmap) != 0;
    }
}

}  // namespace

std::uint32_t BlkRequest::written() const {
    // 2.7.8.2: bytes written from the front on without a gap; the status is the last of all.
    const std::uint64_t room = chain.writable.size() - kStatusBytes;
    std::uint64_t data = 0;
    if (kind == Kind::get_id) {
        data = std::min<std::uint64_t>(room, kBlkIdBytes);
    } else if (kind == Kind::read && status == kBlkOk) {
        data = room;
    }
    return static_cast<std::uint32_t>(data + (data == room ? kStatusBytes : 0));
}

Result<BlkRequest> decode_request(const vmm::GuestMemory& memory, Chain chain, const BlkLimits& limits) {
    BlkRequest request;
    request.chain = std::move(chain);
    const Segments& readable = request.chain.readable;
    const Segments& writable = request.chain.writable;
    if (readable.size() < BlkRequest::kHeaderBytes || writable.size() < kStatusBytes) {
        return vmm::fail(vmm::Code::invalid, "a request with {} bytes to read and {} to write",
                         readable.size(), writable.size());
    }
    std::array<std::byte, BlkRequest::kHeaderBytes> header{};
    readable.read(memory, 0, header);
    const auto type = vmm::load_le<std::uint32_t>(header.data());
    const auto sector = vmm::load_le<std::uint64_t>(header.data() + 8);
    using Kind = BlkRequest::Kind;
    switch (type) {
        case kIn:
            request.kind = Kind::read;
            decode_transfer(request, sector, writable.size() - kStatusBytes, limits);
            break;
        case kOut:
            request.kind = Kind::write;
            decode_transfer(request, sector, readable.size() - BlkRequest::kHeaderBytes, limits);
            break;
        case kFlush:
            request.kind = Kind::flush;
            break;
        case kGetId:
            request.kind = Kind::get_id;
            break;
        case kDiscard:
            request.kind = Kind::discard;
            decode_range(request, memory, limits);
            break;
        case kWriteZeroes:
            request.kind = Kind::write_zeroes;
            decode_range(request, memory, limits);
            break;
        default:
            refuse(request, kBlkUnsupported);
            break;
    }
    return request;
}

}  // namespace devices::virtio
