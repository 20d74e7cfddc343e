// MachineConfig: what a machine is made from.
#pragma once

#include <array>
#include <string>

#include "vmm/base/mapping.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace vmm {

struct MachineConfig {
    static constexpr std::size_t kMaxName = 64;
    static constexpr std::uint32_t kMaxVcpus = 254;  // 8-bit APIC ids without the broadcast id

    std::string name;
    std::array<std::uint8_t, 16> uuid{};
    std::uint64_t ram_bytes = 0;  // a multiple of 4096
    std::uint32_t vcpus = 1;
    CpuidTable cpuid;                // empty: made from what this host supports
    std::uint32_t tsc_khz = 0;       // 0: the host's
    Backing backing = Backing::thp;  // does not travel: each host chooses
};

}  // namespace vmm
