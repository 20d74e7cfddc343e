#include "devices/reset_port.hpp"

namespace devices {

namespace {

constexpr std::uint64_t kResetData = 0;
constexpr std::uint64_t kCommand = 4;  // reads as status
constexpr std::byte kPulseReset{0xfe};

}  // namespace

void ResetPort::read(std::uint64_t offset, std::span<std::byte> data) {
    for (std::byte& value : data) {
        value = offset == kResetData || offset == kCommand ? std::byte{0} : std::byte{0xff};
        ++offset;
    }
}

void ResetPort::write(std::uint64_t offset, std::span<const std::byte> data) {
    // Of a wide write only the byte that reaches the command port counts.
    if (offset <= kCommand && kCommand - offset < data.size() && data[kCommand - offset] == kPulseReset) {
        control_.reset();
    }
}

vmm::Result<void> ResetPort::restore(vmm::SnapshotReader& snapshot) {
    TRY(snapshot.take<ResetPortState>(0));
    return {};
}

}  // namespace devices
