#include "devices/board.hpp"

#include "devices/acpi_power.hpp"
#include "devices/exit_port.hpp"
#include "devices/reset_port.hpp"
#include "devices/rtc_cmos.hpp"

namespace devices {

using vmm::Result;

namespace {

CmosMemory cmos_memory(const vmm::GuestMemory& ram) {
    constexpr std::uint64_t k4GiB = std::uint64_t{4} << 30;
    CmosMemory memory;
    for (const vmm::MemoryRegion& region : ram.regions()) {
        (region.start.value < k4GiB ? memory.below_4g : memory.above_4g) += region.memory.bytes().size();
    }
    return memory;
}

std::uint64_t window_of(const virtio::Config& config) {
    return kVirtioBase + config.window * virtio::MmioTransport::kWindow;
}

Result<void> add_virtio(const virtio::Config& config, const BoardConfig& config_of_board,
                        const BoardPorts& ports, Board& board) {
    virtio::Made made = TRY(virtio::make_device(config, ports.io, config_of_board.serial_events));
    auto transport =
        TRY(virtio::MmioTransport::create(std::move(made.device), {config.id, config.window, ports.memory,
                                                                   ports.io, config_of_board.virtio_report}));
    const std::uint64_t base = window_of(config);
    TRY(ports.mmio.insert(base, virtio::MmioTransport::kWindow, *transport));
    TRY(ports.attach_interrupt(kVirtioGsi + config.window, transport->interrupt_fd()));
    for (std::uint32_t queue = 0; queue < transport->queues(); ++queue) {
        TRY(ports.attach_doorbell(vmm::Gpa{base + virtio::MmioTransport::kQueueNotify}, queue,
                                  transport->notify_fd(queue)));
    }
    if (made.exclusive != nullptr) {
        ports.add_exclusive(*made.exclusive);
    }
    if (made.console != nullptr) {
        board.consoles.push_back(made.console);
    }
    ports.add_device(std::move(transport));
    return {};
}

}  // namespace

std::vector<vmm::DeviceIdentity> fixed_devices() {
    return {{Serial16550State::id},
            {RtcCmosState::id},
            {ResetPortState::id},
            {ExitPortState::id},
            {AcpiPowerState::id}};
}

vmm::Platform describe_platform(const BoardConfig& config, std::uint32_t vcpus) {
    vmm::Platform platform;
    platform.vcpus = vcpus;
    platform.com1 = {kSerialBase, kSerialGsi};
    platform.rtc = kRtcBase;
    platform.power.sleep_control = kAcpiPowerBase + AcpiPower::kSleepControl;
    platform.power.sleep_status = kAcpiPowerBase + AcpiPower::kSleepStatus;
    platform.power.reset = kAcpiPowerBase + AcpiPower::kReset;
    platform.power.soft_off_type = AcpiPower::kSoftOff;
    platform.power.reset_value = AcpiPower::kResetValue;
    for (const virtio::Config& device : config.virtio) {
        platform.virtio.push_back(
            {window_of(device), virtio::MmioTransport::kWindow, kVirtioGsi + device.window});
    }
    return platform;
}

Result<Board> build_board(BoardConfig config, const BoardPorts& ports) {
    // Puts a device on the port bus and gives it to the machine.
    const auto add = [&](auto device, std::uint64_t base) -> Result<void> {
        TRY(ports.pio.insert(base, device->kPorts, *device));
        ports.add_device(std::move(device));
        return {};
    };
    Board board;
    auto backend = TRY(make_serial_backend(config.serial, ports.io, config.serial_events));
    auto serial = std::make_unique<Serial16550>(ports.line(kSerialGsi), std::move(backend));
    board.serial = serial.get();

    TRY(add(std::move(serial), kSerialBase));
    TRY(add(std::make_unique<RtcCmos>(ports.clock, cmos_memory(ports.memory)), kRtcBase));
    TRY(add(std::make_unique<ResetPort>(ports.control), kResetPortBase));
    TRY(add(std::make_unique<ExitPort>(ports.control), kExitPortBase));
    TRY(add(std::make_unique<AcpiPower>(ports.control), kAcpiPowerBase));
    for (const virtio::Config& device : config.virtio) {
        TRY(add_virtio(device, config, ports, board));
    }
    return board;
}

}  // namespace devices
