#include "vmm/machine/acpi.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "vmm/base/check.hpp"
#include "vmm/machine/aml.hpp"

namespace vmm {

namespace {

constexpr std::string_view kOemId = "GODWIT";
constexpr std::string_view kOemTableId = "GODWITVM";
constexpr std::uint32_t kRevision = 1;            // of ours, as OEM and as creator
constexpr std::uint32_t kCreatorId = 0x54574447;  // "GDWT"
constexpr std::size_t kChecksumAt = 9;            // in every table but the RSDP
constexpr std::size_t kLengthAt = 4;
constexpr std::size_t kTableAlignment = 16;

// 5.2.9, FADT: flags of the processor and of the machine.
constexpr std::uint32_t kWbinvd = 1U << 0;
constexpr std::uint32_t kNoFixedPowerButton = 1U << 4;
constexpr std::uint32_t kNoFixedSleepButton = 1U << 5;
constexpr std::uint32_t kNoFixedRtcWake = 1U << 6;
constexpr std::uint32_t kResetRegister = 1U << 10;
constexpr std::uint32_t kHardwareReduced = 1U << 20;
// 5.2.9.3, IA-PC boot architecture. Clear: legacy devices to be found by probing, an 8042.
constexpr std::uint16_t kNoVga = 1U << 2;
constexpr std::uint16_t kNoAspm = 1U << 4;

// 5.2.12, MADT.
constexpr std::uint32_t kLocalApicAddress = 0xfee0'0000;
constexpr std::uint32_t kIoApicAddress = 0xfec0'0000;
constexpr std::uint32_t kHas8259 = 1U << 0;
constexpr std::uint32_t kEnabled = 1U << 0;

std::uint8_t checksum(std::span<const std::byte> bytes) {
    const unsigned sum = std::accumulate(bytes.begin(), bytes.end(), 0U, [](unsigned total, std::byte value) {
        return total + std::to_integer<unsigned>(value);
    });
    return static_cast<std::uint8_t>(0U - sum);
}

void put_text(Bytes& bytes, std::string_view text) {
    ByteWriter{bytes}.put(std::as_bytes(std::span{text}));
}

// 5.2.6: the header of every table but the RSDP. finish() sets its length and checksum.
Bytes start(std::string_view signature, std::uint8_t revision) {
    Bytes table;
    ByteWriter out{table};
    put_text(table, signature);
    out.put(std::uint32_t{0});  // length
    out.put(revision);
    out.put(std::uint8_t{0});  // checksum
    put_text(table, kOemId);
    put_text(table, kOemTableId);
    out.put(kRevision);
    out.put(kCreatorId);
    out.put(kRevision);
    return table;
}

Bytes finish(Bytes table) {
    store_le(table.data() + kLengthAt, static_cast<std::uint32_t>(table.size()));
    store_le(table.data() + kChecksumAt, checksum(table));
    return table;
}

// 5.2.3.2: one byte-wide register at a port.
void put_port(ByteWriter& out, std::uint16_t port) {
    out.put(std::uint8_t{1});  // system I/O space
    out.put(std::uint8_t{8});  // bits
    out.put(std::uint8_t{0});  // from bit 0 on
    out.put(std::uint8_t{1});  // accessed by bytes
    out.put(std::uint64_t{port});
}

Bytes fadt(const Platform& platform, std::uint64_t dsdt) {
    constexpr std::uint8_t kMajor = 6;
    constexpr std::uint8_t kMinor = 4;
    constexpr std::size_t kBootArchitectureAt = 109;
    constexpr std::size_t kFlagsAt = 112;
    constexpr std::size_t kMinorAt = 131;
    constexpr std::size_t kExtendedDsdtAt = 140;
    constexpr std::size_t kSleepControlAt = 244;
    constexpr std::size_t kBytes = 276;

    Bytes table = start("FACP", kMajor);
    ByteWriter out{table};
    // What is left at zero does not exist on a hardware-reduced machine.
    table.resize(kBootArchitectureAt);
    out.put(static_cast<std::uint16_t>(kNoVga | kNoAspm));
    table.resize(kFlagsAt);
    out.put(kWbinvd | kNoFixedPowerButton | kNoFixedSleepButton | kNoFixedRtcWake | kResetRegister |
            kHardwareReduced);
    put_port(out, platform.power.reset);
    out.put(platform.power.reset_value);
    table.resize(kMinorAt);
    out.put(kMinor);
    table.resize(kExtendedDsdtAt);
    out.put(dsdt);
    table.resize(kSleepControlAt);
    put_port(out, platform.power.sleep_control);
    put_port(out, platform.power.sleep_status);
    table.resize(kBytes);  // hypervisor vendor identity: none
    return finish(std::move(table));
}

Bytes madt(const Platform& platform) {
    Bytes table = start("APIC", 5);
    ByteWriter out{table};
    out.put(kLocalApicAddress);
    out.put(kHas8259);
    for (std::uint32_t index = 0; index < platform.vcpus; ++index) {
        out.put(std::uint8_t{0});  // processor local APIC
        out.put(std::uint8_t{8});
        out.put(static_cast<std::uint8_t>(index));  // processor UID
        out.put(static_cast<std::uint8_t>(index));  // APIC id
        out.put(kEnabled);
    }
    out.put(std::uint8_t{1});  // I/O APIC
    out.put(std::uint8_t{12});
    out.put(std::uint8_t{0});  // id
    out.put(std::uint8_t{0});  // reserved
    out.put(kIoApicAddress);
    out.put(std::uint32_t{0});  // its first GSI
    // The PIT, ISA interrupt 0, is wired to pin 2.
    out.put(std::uint8_t{2});  // interrupt source override
    out.put(std::uint8_t{10});
    out.put(std::uint8_t{0});   // bus: ISA
    out.put(std::uint8_t{0});   // source
    out.put(std::uint32_t{2});  // GSI
    out.put(std::uint16_t{0});  // trigger and polarity as on ISA
    return finish(std::move(table));
}

AmlWriter serial_port(const SerialPort& port) {
    AmlResources resources;
    resources.io(port.base, 8);
    resources.interrupt(port.gsi, AmlResources::Trigger::level);
    AmlWriter device;
    device.name("_HID", "PNP0501");  // 16550A-compatible
    device.name("_UID", 1);
    device.name_resources("_CRS", resources);
    return device;
}

AmlWriter real_time_clock(std::uint16_t base) {
    AmlResources resources;
    resources.io(base, 2);
    AmlWriter device;
    device.name("_HID", "PNP0B00");  // AT real-time clock
    device.name_resources("_CRS", resources);
    return device;
}

AmlWriter virtio(const MmioWindow& window, std::uint64_t uid) {
    VERIFY(window.base <= UINT32_MAX && window.size <= UINT32_MAX - window.base);
    AmlResources resources;
    resources.memory32_fixed(static_cast<std::uint32_t>(window.base),
                             static_cast<std::uint32_t>(window.size));
    resources.interrupt(window.gsi, AmlResources::Trigger::edge);
    AmlWriter device;
    device.name("_HID", "LNRO0005");  // virtio over MMIO, as Linux's virtio_mmio knows it
    device.name("_UID", uid);
    device.name("_CCA", 1);
    device.name_resources("_CRS", resources);
    return device;
}

Bytes dsdt(const Platform& platform) {
    AmlWriter devices;
    devices.device("COM1", serial_port(platform.com1));
    devices.device("RTC_", real_time_clock(platform.rtc));
    for (std::size_t i = 0; i < platform.virtio.size(); ++i) {
        devices.device(fmt::format("V{:03X}", i), virtio(platform.virtio[i], i));
    }
    AmlWriter root;
    root.scope("\\_SB_", devices);
    // 7.4.2: the values of SLP_TYP; the second is for a register that this machine does not have.
    root.name_package("\\_S5_", {platform.power.soft_off_type, 0, 0, 0});
    Bytes table = start("DSDT", 2);  // 2: 64-bit integers
    ByteWriter{table}.put(root.bytes());
    return finish(std::move(table));
}

Bytes xsdt(std::uint64_t fadt, std::uint64_t madt) {
    Bytes table = start("XSDT", 1);
    ByteWriter out{table};
    out.put(fadt);
    out.put(madt);
    return finish(std::move(table));
}

// 5.2.5.3.
Bytes rsdp(std::uint64_t xsdt) {
    constexpr std::size_t kFirstChecksumAt = 8;
    constexpr std::size_t kFirstBytes = 20;  // what the first checksum is of
    constexpr std::size_t kSecondChecksumAt = 32;
    constexpr std::uint32_t kBytes = 36;
    Bytes table;
    ByteWriter out{table};
    put_text(table, "RSD PTR ");
    out.put(std::uint8_t{0});  // checksum
    put_text(table, kOemId);
    out.put(std::uint8_t{2});   // revision
    out.put(std::uint32_t{0});  // RSDT: none
    out.put(kBytes);
    out.put(xsdt);
    out.put(std::uint32_t{0});  // checksum of all, reserved
    store_le(table.data() + kFirstChecksumAt, checksum(std::span{table}.first(kFirstBytes)));
    store_le(table.data() + kSecondChecksumAt, checksum(table));
    return table;
}

}  // namespace

Bytes acpi_tables(const Platform& platform, std::uint64_t base) {
    VERIFY(base % kTableAlignment == 0 && platform.vcpus <= UINT8_MAX);
    Bytes all(rsdp(0).size());
    const auto add = [&](const Bytes& table) {
        all.resize((all.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment);
        const std::uint64_t address = base + all.size();
        ByteWriter{all}.put(table);
        return address;
    };
    const std::uint64_t dsdt_at = add(dsdt(platform));
    const std::uint64_t fadt_at = add(fadt(platform, dsdt_at));
    const std::uint64_t madt_at = add(madt(platform));
    const Bytes pointer = rsdp(add(xsdt(fadt_at, madt_at)));
    std::copy(pointer.begin(), pointer.end(), all.begin());
    return all;
}

}  // namespace vmm
