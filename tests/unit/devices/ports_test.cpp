// The devices that are a port or two, and the board that puts all of them in place.
#include <catch2/catch.hpp>

#include "devices/acpi_power.hpp"
#include "devices/board.hpp"
#include "devices/exit_port.hpp"
#include "devices/reset_port.hpp"
#include "tests/unit/devices/fakes.hpp"

using tests::in;
using tests::out;

TEST_CASE("the exit port passes the low byte of any write", "[devices]") {
    tests::FakeControl control;
    devices::ExitPort port{control};
    out(port, 0, 16);
    const std::array<std::byte, 4> wide{std::byte{17}, std::byte{1}, std::byte{2}, std::byte{3}};
    port.write(0, wide);
    out(port, 1, 18);
    CHECK(control.exits == std::vector<std::uint8_t>{16, 17});
    CHECK(in(port, 0) == 0);
}

TEST_CASE("only command 0xfe resets the machine", "[devices]") {
    tests::FakeControl control;
    devices::ResetPort port{control};
    for (unsigned value = 0; value < 0xfe; ++value) {
        out(port, 4, value);
    }
    out(port, 0, 0xfe);
    out(port, 1, 0xfe);
    CHECK(control.resets == 0);
    out(port, 4, 0xfe);
    CHECK(control.resets == 1);
    CHECK(in(port, 4) == 0);
    CHECK(in(port, 0) == 0);
    CHECK(in(port, 1) == 0xff);
    port.write(4, std::array<std::byte, 8>{std::byte{0xfe}});
    port.write(5, std::array<std::byte, 1>{std::byte{0xfe}});
    CHECK(control.resets == 2);
}

TEST_CASE("the ACPI power registers know soft off and reset", "[devices]") {
    tests::FakeControl control;
    devices::AcpiPower power{control};
    for (unsigned value = 0; value < 0x100; ++value) {
        out(power, devices::AcpiPower::kSleepControl, value);
        // SLP_EN is bit 5, SLP_TYP bits 2 to 4; the others are reserved.
        CHECK(control.power_offs == ((value & 0x3c) == 0x34 ? 1 : 0));
        control.power_offs = 0;
    }
    for (unsigned value = 0; value < 0x100; ++value) {
        out(power, devices::AcpiPower::kSleepStatus, value);
        out(power, devices::AcpiPower::kReset, value);
    }
    CHECK(control.power_offs == 0);
    CHECK(control.resets == 1);
    power.write(1, std::array<std::byte, 8>{std::byte{0x80}, std::byte{1}, std::byte{1}});
    CHECK(control.resets == 2);
    CHECK(in(power, devices::AcpiPower::kSleepControl) == 0);
    CHECK(in(power, devices::AcpiPower::kSleepStatus) == 0);
    CHECK(in(power, devices::AcpiPower::kReset) == 0);
}

TEST_CASE("the guest is told the addresses that the board uses", "[devices]") {
    const vmm::Platform platform = devices::describe_platform({}, 3);
    CHECK(platform.vcpus == 3);
    CHECK(platform.virtio.empty());
    CHECK(platform.com1.base == 0x3f8);
    CHECK(platform.com1.gsi == 4);
    CHECK(platform.rtc == 0x70);
    CHECK(platform.power.sleep_control == 0x600);
    CHECK(platform.power.sleep_status == 0x601);
    CHECK(platform.power.reset == 0x602);
    CHECK(platform.power.soft_off_type == 5);
    CHECK(platform.power.reset_value == 1);
}

TEST_CASE("the board puts every device at its address", "[devices]") {
    vmm::Bus pio;
    tests::FakeLine line;
    tests::FakeControl control;
    tests::FakeClock clock;
    auto memory = vmm::GuestMemory::create(vmm::pc_memory_map(std::uint64_t{64} << 20), vmm::Backing::small);
    REQUIRE(memory);
    vmm::Bus mmio;
    auto loop = vmm::EventLoop::create();
    REQUIRE(loop);
    std::vector<std::unique_ptr<vmm::Device>> owned;
    std::vector<unsigned> lines;
    std::vector<std::pair<std::uint64_t, std::uint32_t>> doorbells;
    const devices::BoardPorts ports{
        pio,
        mmio,
        [&](unsigned gsi) -> vmm::InterruptLine& {
            lines.push_back(gsi);
            return line;
        },
        [&](unsigned gsi, int) {
            lines.push_back(gsi);
            return vmm::Result<void>{};
        },
        [&](vmm::Gpa gpa, std::uint32_t value, int) {
            doorbells.emplace_back(gpa.value, value);
            return vmm::Result<void>{};
        },
        [&](std::unique_ptr<vmm::Device> device) { owned.push_back(std::move(device)); },
        [](vmm::Exclusive&) {},
        control,
        *memory,
        clock,
        **loop};
    devices::BoardConfig config;
    config.virtio = {{"entropy", 3, devices::virtio::RngConfig{}}};
    const auto board = devices::build_board(std::move(config), ports);
    REQUIRE(board);
    CHECK(board->serial != nullptr);
    CHECK(lines == std::vector<unsigned>{4, 19});
    CHECK(doorbells == std::vector<std::pair<std::uint64_t, std::uint32_t>>{{0xd000'3050, 0}});
    const auto fixed = devices::fixed_devices();
    REQUIRE(owned.size() == fixed.size() + 1);
    for (std::size_t i = 0; i < fixed.size(); ++i) {
        CHECK(owned[i]->identity().state.name == fixed[i].state.name);
    }
    CHECK(owned.back()->identity().instance == 3);
    CHECK(owned.back()->identity().id == "entropy");
    std::array<std::byte, 4> magic{};
    mmio.read(0xd000'3000, magic);
    CHECK(vmm::load_le<std::uint32_t>(magic.data()) == 0x74726976);

    std::array<std::byte, 1> byte{};
    pio.read(0x3fd, byte);
    CHECK(byte[0] == std::byte{0x60});
    pio.read(0x64, byte);
    CHECK(byte[0] == std::byte{0});
    pio.write(0x70, std::array<std::byte, 1>{std::byte{0x0d}});
    pio.read(0x71, byte);
    CHECK(byte[0] == std::byte{0x80});
    pio.write(0xf4, std::array<std::byte, 1>{std::byte{3}});
    CHECK(control.exits == std::vector<std::uint8_t>{3});
    pio.write(0x602, std::array<std::byte, 1>{std::byte{1}});
    CHECK(control.resets == 1);
    CHECK(pio.unassigned_accesses() == 0);
}
