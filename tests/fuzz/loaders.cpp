// Image files that mean the worst. Oracle: an image that is accepted keeps what it promises to whoever places
// it.
#include "tests/fuzz/input.hpp"
#include "tests/unit/loader/images.hpp"
#include "vmm/base/check.hpp"
#include "vmm/machine/loader.hpp"

namespace {

struct Ram {
    explicit Ram(std::uint64_t mib)
        : regions(tests::ram(mib)),
          memory(std::move(*vmm::GuestMemory::create(regions, vmm::Backing::small))) {}
    std::vector<vmm::RegionConfig> regions;
    vmm::GuestMemory memory;
};

}  // namespace

// A byte for the machine, one for the length of the command line, two for that of the initrd, the command
// line, then the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static std::array<Ram, 3> machines{Ram{2}, Ram{64}, Ram{5 * 1024}};  // the last has RAM above the hole
    fuzz::Input input{data, size};
    const auto flags = input.take<std::uint8_t>();
    Ram& machine = machines[flags % machines.size()];
    vmm::BootOptions options;
    const auto line_bytes = input.take<std::uint8_t>();
    options.initrd.resize(input.take<std::uint16_t>(), std::byte{7});
    const auto line = input.take_bytes(line_bytes);
    options.command_line = {reinterpret_cast<const char*>(line.data()), line.size()};
    options.memory = machine.regions;
    options.platform.power.reset = 0x602;
    options.platform.power.reset_value = 1;
    const auto image = vmm::load_image(input.rest(), std::move(options));
    if (!image) {
        VERIFY(image.error().text().find('\n') == std::string::npos);
        return 0;
    }
    VERIFY(tests::is_sound(*image, machine.memory));
    for (const vmm::MemoryRegion& region : machine.memory.regions()) {
        VERIFY(machine.memory.discard(region.pages()).has_value());
    }
    return 0;
}
