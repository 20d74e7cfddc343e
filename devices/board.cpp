#include "devices/board.hpp"

#include "devices/exit_port.hpp"
#include "devices/reset_port.hpp"
#include "devices/rtc_cmos.hpp"

namespace devices {

using vmm::Result;

namespace {

CmosMemory cmos_memory(std::span<const vmm::RegionConfig> regions) {
    constexpr std::uint64_t k4GiB = std::uint64_t{4} << 30;
    CmosMemory memory;
    for (const vmm::RegionConfig& region : regions) {
        (region.start.value < k4GiB ? memory.below_4g : memory.above_4g) += region.size;
    }
    return memory;
}

}  // namespace

Result<Board> build_board(BoardConfig config, const BoardPorts& ports) {
    // Puts a device on the port bus and gives it to the machine.
    const auto add = [&](auto device, std::uint64_t base) -> Result<void> {
        TRY(ports.pio.insert(base, device->kPorts, *device));
        ports.add_device(std::move(device));
        return {};
    };
    Board board;
    auto backend = TRY(make_serial_backend(config.serial, ports.io, std::move(config.serial_events)));
    auto serial = std::make_unique<Serial16550>(ports.line(kSerialGsi), std::move(backend));
    board.serial = serial.get();

    TRY(add(std::move(serial), kSerialBase));
    TRY(add(std::make_unique<RtcCmos>(ports.clock, cmos_memory(ports.memory)), kRtcBase));
    TRY(add(std::make_unique<ResetPort>(ports.control), kResetPortBase));
    TRY(add(std::make_unique<ExitPort>(ports.control), kExitPortBase));
    return board;
}

}  // namespace devices
