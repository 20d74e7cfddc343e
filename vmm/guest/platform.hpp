// Platform: what of the machine its guest cannot find out and has to be told, as the ACPI tables tell it.
#pragma once

#include <cstdint>
#include <vector>

namespace vmm {

// Registers of a virtio device in the hole below 4 GiB, with its interrupt, which is edge-triggered.
struct MmioWindow {
    std::uint64_t base = 0;  // guest physical
    std::uint64_t size = 0;  // bytes
    std::uint32_t gsi = 0;
};

// A 16550 at eight I/O ports.
struct SerialPort {
    std::uint16_t base = 0;
    std::uint32_t gsi = 0;
};

// Registers of one I/O port each (ACPI 6.4, 4.8.3.6 and 4.8.3.7), and what is written to them.
struct PowerPorts {
    std::uint16_t sleep_control = 0;
    std::uint16_t sleep_status = 0;
    std::uint16_t reset = 0;
    std::uint8_t soft_off_type = 0;  // SLP_TYP of S5
    std::uint8_t reset_value = 0;
};

struct Platform {
    std::uint32_t vcpus = 1;  // the APIC id of each is its index
    std::vector<MmioWindow> virtio;
    SerialPort com1;
    std::uint16_t rtc = 0;  // the first of the two ports of an MC146818A, whose interrupt is not wired
    PowerPorts power;
};

}  // namespace vmm
