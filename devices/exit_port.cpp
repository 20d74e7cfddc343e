#include "devices/exit_port.hpp"

#include <algorithm>

namespace devices {

void ExitPort::read(std::uint64_t, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), std::byte{0});
}

void ExitPort::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (offset == 0) {
        control_.exit(std::to_integer<std::uint8_t>(data.front()));
    }
}

vmm::Result<void> ExitPort::restore(vmm::SnapshotReader& snapshot) {
    TRY(snapshot.take<ExitPortState>(0));
    return {};
}

}  // namespace devices
