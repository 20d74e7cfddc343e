// What a machine's snapshot consists of, held against its recorded schemas and streams: a field that changes
// without a new version fails here, and what was once written must stay readable.
#include <catch2/catch.hpp>

#include "tests/golden/golden.hpp"
#include "vmm/machine/machine_state.hpp"
#include "vmm/state/describe.hpp"

namespace {

// Every byte of its own value, so that a field out of place shows.
template <vmm::RawField T>
void number(T& raw) {
    auto bytes = std::as_writable_bytes(std::span{&raw, 1});
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::byte>(i * 7 + bytes.size());
    }
}

template <vmm::State T>
void check_format(const T& sample) {
    const std::string name = std::string{T::id.name} + "-v" + std::to_string(T::id.current);
    tests::check_golden("schema/" + name + ".txt", vmm::describe<T>());
    tests::check_golden("stream/" + name + ".bin", vmm::encode(sample));
    const vmm::Bytes recorded = tests::golden_bytes("stream/" + name + ".bin");
    const auto loaded = vmm::decode<T>(recorded, T::id.current);
    REQUIRE(loaded);
    CHECK(vmm::first_difference(*loaded, sample) == "");
    for (std::size_t size = 0; size < recorded.size(); ++size) {
        REQUIRE(!vmm::decode<T>(std::span{recorded}.first(size), T::id.current));
    }
}

}  // namespace

TEST_CASE("the format of a machine's state has not changed without a new version", "[machine]") {
    vmm::RunFlags flags;
    flags.running = true;
    check_format(flags);

    check_format(vmm::ClockState{1234567, 7654321});

    vmm::VcpuState vcpu;
    vcpu.tsc = 99;
    vcpu.has_sregs2 = true;
    number(vcpu.mp_state);
    number(vcpu.regs);
    number(vcpu.sregs);
    number(vcpu.sregs2);
    number(vcpu.xcrs);
    vcpu.xsave = vmm::Bytes(4096, std::byte{5});
    number(vcpu.debugregs);
    number(vcpu.lapic);
    vcpu.msrs = {{0x10, 1}, {0xc0000080, 0x500}};
    number(vcpu.events);
    check_format(vcpu);

    vmm::IrqchipState irqchips;
    number(irqchips.pic_master);
    number(irqchips.pic_slave);
    number(irqchips.ioapic);
    number(irqchips.pit);
    check_format(irqchips);

    vmm::BootImage image;
    image.mode = vmm::EntryMode::long64;
    image.entry = 0x1000200;
    image.rbx = 0x9000;
    image.segments = {{0x7c00, vmm::Bytes(16, std::byte{0x90}), 32}};
    image.rsi = 0x1c000;
    image.cr3 = 0x14000;
    image.gdt = 0x1b000;
    check_format(image);
}

TEST_CASE("a boot image of version 1 is read as what it was, and enters no later mode", "[machine]") {
    vmm::BootImage image;
    image.mode = vmm::EntryMode::real16;
    image.entry = 0x7c00;
    image.rbx = 0x9000;
    image.segments = {{0x7c00, vmm::Bytes(16, std::byte{0x90}), 32}};
    vmm::Bytes recorded = tests::golden_bytes("stream/boot-image-v1.bin");
    const auto loaded = vmm::decode<vmm::BootImage>(recorded, 1);
    REQUIRE(loaded);
    CHECK(vmm::first_difference(*loaded, image) == "");
    recorded[0] = std::byte{2};
    CHECK_FALSE(vmm::decode<vmm::BootImage>(recorded, 1));
}
