#include "migration/tls_preamble.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace migration {

namespace {

constexpr std::uint32_t kPreambleMagic = 0x31545747;  // "GWT1"
constexpr std::size_t kPurposeOffset = 4;
constexpr std::size_t kSessionOffset = 8;
constexpr std::size_t kChecksumOffset = 24;

std::uint64_t preamble_checksum(std::span<const std::byte> raw) {
    return XXH3_64bits(raw.data(), kChecksumOffset);
}

}  // namespace

std::array<std::byte, TlsPreamble::kBytes> TlsPreamble::encode() const {
    std::array<std::byte, kBytes> raw{};
    vmm::store_le(raw.data(), kPreambleMagic);
    vmm::store_le(raw.data() + kPurposeOffset, static_cast<std::uint32_t>(purpose));
    std::memcpy(raw.data() + kSessionOffset, session.data(), session.size());
    vmm::store_le(raw.data() + kChecksumOffset, preamble_checksum(raw));
    return raw;
}

vmm::Result<std::optional<TlsPreamble>> TlsPreamble::decode(std::span<const std::byte, kBytes> raw) {
    if (vmm::load_le<std::uint32_t>(raw.data()) != kPreambleMagic) {
        return std::optional<TlsPreamble>{};
    }
    const auto purpose = vmm::load_le<std::uint32_t>(raw.data() + kPurposeOffset);
    if (vmm::load_le<std::uint64_t>(raw.data() + kChecksumOffset) != preamble_checksum(raw) ||
        purpose > static_cast<std::uint32_t>(Purpose::resume)) {
        return vmm::fail(vmm::Code::corrupt, "the preamble of a TLS connection is malformed");
    }
    TlsPreamble preamble;
    preamble.purpose = static_cast<Purpose>(purpose);
    std::memcpy(preamble.session.data(), raw.data() + kSessionOffset, preamble.session.size());
    return std::optional{preamble};
}

}  // namespace migration
