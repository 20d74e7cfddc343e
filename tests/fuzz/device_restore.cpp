// The state of a device from a peer that means the worst, and then a guest that does. Oracle: what is refused
// has changed nothing, what is accepted is saved as it came, and the device comes to rest and can be moved
// again, whatever its registers and its memory were made to be.
#include "devices/acpi_power.hpp"
#include "devices/exit_port.hpp"
#include "devices/reset_port.hpp"
#include "devices/rtc_cmos.hpp"
#include "devices/serial_16550.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/fuzz/virtio.hpp"
#include "tests/unit/devices/device_state.hpp"
#include "tests/unit/devices/fakes.hpp"

namespace {

using namespace devices;

constexpr std::uint64_t kMemoryBytes = 1 << 20;
constexpr vmm::Duration kRest = std::chrono::seconds{5};

struct Subject {
    virtual ~Subject() = default;
    virtual vmm::Device& device() = 0;
    virtual vmm::BusDevice& bus() = 0;
};

template <typename T>
struct Port final : Subject {
    vmm::Device& device() override { return port; }
    vmm::BusDevice& bus() override { return port; }
    tests::FakeControl control;
    T port{control};
};

struct Serial final : Subject {
    vmm::Device& device() override { return serial; }
    vmm::BusDevice& bus() override { return serial; }
    tests::FakeLine line;
    tests::FakeWire wire;
    Serial16550 serial{line, std::make_unique<tests::FakeBackend>(wire)};
};

struct Rtc final : Subject {
    vmm::Device& device() override { return rtc; }
    vmm::BusDevice& bus() override { return rtc; }
    tests::FakeClock clock;
    RtcCmos rtc{clock, CmosMemory{kMemoryBytes, 0}};
};

struct Virtio final : Subject {
    Virtio(fuzz::Kind kind, vmm::GuestMemory& memory, vmm::EventLoop& loop)
        : transport(std::move(*virtio::MmioTransport::create(
              fuzz::make_virtio(kind, wire, loop), {"fuzz", 0, memory, loop, [](const std::string&) {}}))) {}
    vmm::Device& device() override { return *transport; }
    vmm::BusDevice& bus() override { return *transport; }
    fuzz::Wire wire;
    std::unique_ptr<virtio::MmioTransport> transport;
};

std::unique_ptr<Subject> make_subject(std::uint8_t which, vmm::GuestMemory& memory, vmm::EventLoop& loop) {
    switch (which % 9) {
        case 0:
            return std::make_unique<Serial>();
        case 1:
            return std::make_unique<Rtc>();
        case 2:
            return std::make_unique<Port<ExitPort>>();
        case 3:
            return std::make_unique<Port<ResetPort>>();
        case 4:
            return std::make_unique<Port<AcpiPower>>();
        default:
            return std::make_unique<Virtio>(fuzz::kind_of(which), memory, loop);
    }
}

// One section, of today's version, that must not be ignored: the only spelling of its state.
bool is_canonical(const vmm::Bytes& snapshot, const vmm::StateId& id) {
    constexpr std::size_t kHeaderBytes = 16;
    const std::size_t at = kHeaderBytes + 1 + id.name.size() + 4;  // behind name and instance
    return vmm::load_le<std::uint32_t>(snapshot.data() + 12) == 1 &&
           vmm::load_le<std::uint16_t>(snapshot.data() + at) == id.current &&
           vmm::load_le<std::uint16_t>(snapshot.data() + at + 2) == 0;
}

// Reads, writes, and a driver's words in memory.
void act(fuzz::Input& input, vmm::BusDevice& bus, vmm::GuestMemory& memory) {
    while (!input.empty()) {
        const auto what = input.take<std::uint8_t>();
        const auto offset = input.take<std::uint16_t>();
        const auto value = input.take<std::uint64_t>();
        std::array<std::byte, sizeof value> raw{};
        vmm::store_le(raw.data(), value);
        const auto some = std::span{raw}.first(std::size_t{1} << (what >> 2) % 4);
        if (what % 4 == 0) {
            bus.read(offset % virtio::MmioTransport::kWindow, some);
        } else if (what % 4 == 1) {
            bus.write(offset % virtio::MmioTransport::kWindow, some);
        } else {
            (void)memory.write(vmm::Gpa{std::uint64_t{offset} * 16 + what % 4}, some);
        }
    }
}

}  // namespace

// A byte for the device, its snapshot, then what the guest does.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static fuzz::IoThread io;
    static auto memory = vmm::GuestMemory::create(std::vector<vmm::RegionConfig>{{vmm::Gpa{0}, kMemoryBytes}},
                                                  vmm::Backing::small);
    fuzz::Input input{data, size};
    const auto which = input.take<std::uint8_t>();
    vmm::Bytes snapshot{input.rest().begin(), input.rest().end()};
    snapshot.resize(fuzz::repair_snapshot(snapshot));
    input.take_bytes(snapshot.size());
    VERIFY(memory->discard(memory->regions().front().pages()).has_value());

    const auto subject = make_subject(which, *memory, *io.loop);
    vmm::Device& device = subject->device();
    const vmm::Bytes before = tests::save(device);
    auto reader = vmm::SnapshotReader::parse(snapshot);
    if (reader && !device.restore(*reader)) {
        VERIFY(tests::save(device) == before);
    } else if (reader && is_canonical(snapshot, device.identity().state)) {
        VERIFY(tests::save(device) == snapshot);
    }
    device.resume();
    act(input, subject->bus(), *memory);
    io.sync();
    VERIFY(device.pause(kRest).has_value());
    VERIFY(tests::restore(device, tests::save(device)).has_value());
    device.resume();
    io.sync();
    VERIFY(device.pause(kRest).has_value());
    return 0;
}
