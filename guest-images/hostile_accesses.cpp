// Reads and writes of every size where no device is, beside devices, and across their borders: every port,
// and physical addresses around all that the machine has.

#include "hostile_mode.hpp"
#include "runtime/cpu.hpp"
#include "runtime/memory.hpp"

namespace hostile {

namespace {

using guest::Fields;

constinit uint64_t accesses = 0;
constinit uint64_t passes = 0;

void report(Fields& fields) {
    fields.number("accesses", accesses).number("passes", passes);
}

bool verify(Fields&) {
    return true;  // each access was checked when it was made
}

// Ports

struct Ports {
    uint32_t first;
    uint32_t last;
};

// Would end, reset or power off the machine, take our commands, or (fw_cfg, QEMU's) write into our memory.
constexpr Ports kLeftAlone[] = {{0x60, 0x64},   {0x92, 0x92},   {0xf4, 0xf7},  {0x3f8, 0x3ff},
                                {0x510, 0x51f}, {0x600, 0x607}, {0xcf8, 0xcff}};
// Devices that stand it; what they read as is their affair. PICs, PIT, port B, clock, ELCR.
constexpr Ports kDevices[] = {{0x20, 0x21}, {0x40, 0x43}, {0x61, 0x61},
                              {0x70, 0x71}, {0xa0, 0xa1}, {0x4d0, 0x4d1}};
constexpr uint32_t kPorts = 0x10000;

template <size_t N>
bool touches(const Ports (&all)[N], uint32_t port, uint32_t size) {
    for (const Ports& ports : all) {
        if (port <= ports.last && port + size > ports.first) {
            return true;
        }
    }
    return false;
}

uint64_t read_port(uint16_t port, uint32_t size) {
    uint32_t value = 0;
    if (size == 1) {
        value = guest::in8(port);
    } else if (size == 2) {
        uint16_t word;
        asm volatile("inw %1, %0" : "=a"(word) : "Nd"(port));
        value = word;
    } else {
        asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    }
    return value;
}

void write_port(uint16_t port, uint32_t size, uint32_t value) {
    if (size == 1) {
        guest::out8(port, static_cast<uint8_t>(value));
    } else if (size == 2) {
        asm volatile("outw %0, %1" : : "a"(static_cast<uint16_t>(value)), "Nd"(port) : "memory");
    } else {
        asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
    }
}

constinit uint32_t next_port = 0;
constinit uint32_t stride = 1;

// A pass takes every stride-th port, the next pass those beside them.
void start_ports(const guest::Parameters& parameters, Fields& ready) {
    stride = static_cast<uint32_t>(parameters.number("stride", 7));
    if (stride == 0 || stride > kPorts) {
        guest::fail(Fields().text("reason", "bad_parameter").number("stride", stride));
    }
    ready.number("stride", stride);
}

void step_ports() {
    const uint32_t port = next_port;
    for (uint32_t size = 1; size <= 4; size *= 2) {
        if (port + size > kPorts || touches(kLeftAlone, port, size)) {
            continue;
        }
        const auto number = static_cast<uint16_t>(port);
        const uint64_t value = read_port(number, size);
        if (!touches(kDevices, port, size)) {
            check_ones("port", port, size, value);
        }
        write_port(number, size, passes % 2 == 0 ? 0xffffffff : 0);
        accesses += 2;
    }
    next_port += stride;
    if (next_port >= kPorts) {
        ++passes;
        next_port = static_cast<uint32_t>(passes % stride);
    }
}

// Memory

// Pages: the last before the windows of virtio devices and those behind them, the hole below 4 GiB and its
// end, around the interrupt controllers, where others have an HPET. Then come those behind RAM.
constexpr uint64_t kPages[] = {0xcffff000, kWindowsEnd, 0xdfff0000, 0xc0000000, 0xe0000000,       0xfec01000,
                               0xfed00000, 0xfee01000,  0xfeff0000, 0xff000000, uint64_t{1} << 35};
constexpr uint64_t kSpots = sizeof kPages / sizeof kPages[0] + 1;
constexpr uint64_t kOffsets[] = {0, 1, 0x7fe, 0xff8};

constinit uint64_t next_access = 0;

uint64_t page_of(uint64_t spot) {
    return spot + 1 < kSpots ? kPages[spot] : ram_end();
}

template <typename T>
void access_memory(uint64_t address) {
    const auto* from = reinterpret_cast<const volatile T*>(address);
    check_ones("memory", address, sizeof(T), *from);
    *const_cast<volatile T*>(from) = static_cast<T>(address);
    check_ones("memory", address, sizeof(T), *from);
    accesses += 3;
}

void start_mmio(const guest::Parameters&, Fields& ready) {
    for (uint64_t spot = 0; spot < kSpots; ++spot) {
        guest::memory().map_device(page_of(spot));
    }
    ready.number("pages", kSpots).hex("ram_end", ram_end());
}

void step_mmio() {
    const uint64_t size_index = next_access % 4;
    const uint64_t offset = kOffsets[next_access / 4 % 4];
    const uint64_t spot = next_access / 16;
    const uint64_t address = page_of(spot) + offset;
    if (size_index == 0) {
        access_memory<uint8_t>(address);
    } else if (size_index == 1) {
        access_memory<uint16_t>(address);
    } else if (size_index == 2) {
        access_memory<uint32_t>(address);
    } else {
        access_memory<uint64_t>(address);
    }
    if (++next_access == kSpots * 16) {
        next_access = 0;
        ++passes;
    }
}

}  // namespace

const Mode ports_mode{"ports", start_ports, step_ports, report, verify};
const Mode mmio_mode{"mmio", start_mmio, step_mmio, report, verify};

}  // namespace hostile
