#include "tests/fuzz/input.hpp"

#include <xxhash.h>

#include <algorithm>

namespace fuzz {

namespace {

std::uint64_t checksum(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace

std::size_t repair_snapshot(std::span<std::byte> bytes) {
    constexpr std::size_t kHeaderBytes = 16;
    constexpr std::size_t kCountOffset = 12;
    // After the name: instance, version, flags, length, checksum.
    constexpr std::size_t kLengthOffset = 8;
    constexpr std::size_t kChecksumOffset = 12;
    constexpr std::size_t kAfterName = 20;
    if (bytes.size() < kHeaderBytes) {
        return 0;
    }
    std::size_t end = kHeaderBytes;
    for (auto count = vmm::load_le<std::uint32_t>(&bytes[kCountOffset]); count > 0 && end < bytes.size();
         --count) {
        const std::size_t at = end + 1 + std::to_integer<std::size_t>(bytes[end]);
        if (at > bytes.size() || bytes.size() - at < kAfterName) {
            break;
        }
        const std::size_t length = vmm::load_le<std::uint32_t>(&bytes[at + kLengthOffset]);
        if (length > bytes.size() - at - kAfterName) {
            break;
        }
        vmm::store_le(&bytes[at + kChecksumOffset], checksum(bytes.subspan(at + kAfterName, length)));
        end = at + kAfterName + length;
    }
    return end;
}

void repair(const Frame& frame) {
    constexpr std::uint32_t kMagic = 0x314d5747;
    constexpr std::size_t kZeroOffset = 6;
    constexpr std::size_t kBodyChecksumOffset = 16;
    constexpr std::size_t kHeaderChecksumOffset = 24;
    std::byte* header = frame.header.data();
    vmm::store_le(header, kMagic);
    vmm::store_le(header + kZeroOffset, std::uint16_t{0});
    vmm::store_le(header + kBodyChecksumOffset, checksum(frame.body));
    vmm::store_le(header + kHeaderChecksumOffset, checksum(frame.header.first(kHeaderChecksumOffset)));
}

void for_each_frame(std::span<std::byte> stream, const std::function<void(const Frame&)>& show) {
    constexpr std::size_t kHeaderBytes = 32;
    constexpr std::size_t kBodyOffset = 8;
    constexpr std::size_t kPayloadOffset = 12;
    while (stream.size() >= kHeaderBytes) {
        const std::span<std::byte> rest = stream.subspan(kHeaderBytes);
        const std::size_t body = vmm::load_le<std::uint32_t>(&stream[kBodyOffset]);
        const std::size_t payload = vmm::load_le<std::uint32_t>(&stream[kPayloadOffset]);
        if (body > rest.size() || payload > rest.size() - body) {
            // The end of it never comes; that it is announced is still to be seen.
            repair({stream.first(kHeaderBytes), rest.first(std::min(body, rest.size())), rest.first(0)});
            return;
        }
        const Frame frame{stream.first(kHeaderBytes), rest.first(body), rest.subspan(body, payload)};
        repair(frame);
        show(frame);
        stream = rest.subspan(body + payload);
    }
}

}  // namespace fuzz
