// A boot image as a peer sends it, or a file holds it. Oracle: what is accepted encodes to the same bytes,
// and is placed in RAM or refused.
#include "vmm/machine/boot_image.hpp"

#include "tests/fuzz/input.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto regions = vmm::pc_memory_map(std::uint64_t{4} << 20);
    static auto memory = vmm::GuestMemory::create(regions, vmm::Backing::small);
    const auto input = std::as_bytes(std::span{data, size});
    for (auto version = vmm::BootImage::id.oldest; version <= vmm::BootImage::id.current; ++version) {
        const auto image = vmm::decode<vmm::BootImage>(input, version);
        if (!image) {
            continue;
        }
        if (version == vmm::BootImage::id.current) {
            const vmm::Bytes again = vmm::encode(*image);
            VERIFY(std::equal(again.begin(), again.end(), input.begin(), input.end()));
        }
        (void)vmm::place(*image, *memory);
        VERIFY(memory->discard(memory->regions().front().pages()).has_value());
    }
    return 0;
}
