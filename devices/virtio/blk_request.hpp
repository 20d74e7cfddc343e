// One request to a block device (virtio 1.2 section 5.2.6), decoded and checked.
#pragma once

#include "devices/virtio/chain.hpp"
#include "devices/virtio/disk_ring.hpp"

namespace devices::virtio {

// Status byte, 5.2.6.
inline constexpr std::uint8_t kBlkOk = 0;
inline constexpr std::uint8_t kBlkIoError = 1;
inline constexpr std::uint8_t kBlkUnsupported = 2;

// What a request may ask for: a pause has to wait for all of it.
inline constexpr std::uint32_t kSegMax = 128;
inline constexpr std::uint32_t kSizeMax = 64 << 10;                // bytes of a segment
inline constexpr std::uint32_t kMaxDiscardSectors = 1 << 22;       // 2 GiB: a hint, and quick
inline constexpr std::uint32_t kMaxZeroSectors = (8 << 20) / 512;  // 8 MiB: they may have to be written

inline constexpr std::size_t kBlkIdBytes = 20;  // 5.2.6.1: of a disk's serial number

struct BlkRequest {
    enum class Kind : std::uint8_t {
        read,
        write,
        flush,
        get_id,
        discard,
        write_zeroes,
        fill,  // a write_zeroes that the host cannot do: zeroes are written
        failed
    };

    Kind kind = Kind::failed;
    std::uint8_t status = kBlkOk;
    Chain chain;
    std::uint64_t offset = 0;  // bytes on the disk
    std::uint64_t size = 0;    // bytes
    bool unmap = false;        // of write_zeroes: the blocks may be given back
    // Data is moved in pieces, as buffers become free.
    std::uint64_t begun = 0;
    unsigned pieces = 0;  // in flight
    bool waiting = true;  // not all of it has been begun

    // Where data begins in the readable part of a write: behind the header.
    static constexpr std::uint64_t kHeaderBytes = 16;

    // Of the chain, for the used ring.
    std::uint32_t written() const;
};

struct BlkLimits {
    std::uint64_t sectors = 0;
    bool read_only = false;
};

// A request that cannot be carried out is `failed` with its status; an error is a chain without room for
// header or status, which breaks the rules.
vmm::Result<BlkRequest> decode_request(const vmm::GuestMemory& memory, Chain chain, const BlkLimits& limits);

}  // namespace devices::virtio
