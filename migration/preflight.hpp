// Preflight: would this guest move to this host? All reasons at once, before a byte of memory is copied.
#pragma once

#include <optional>
#include <vector>

#include "migration/message.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/kvm/compatibility.hpp"

namespace migration {

// What a destination offers. The tool fills it from its command line, its board and its KVM.
struct Offer {
    vmm::HostOffer host;                            // the CPUID masks applied
    std::vector<vmm::DeviceIdentity> devices;       // what its board has
    std::optional<std::uint64_t> max_memory_bytes;  // --max-memory
    std::optional<std::uint32_t> max_cpus;          // --max-cpus
    std::uint64_t available_memory_bytes = 0;       // MemAvailable
    std::uint64_t total_memory_bytes = 0;           // MemTotal: the limit where --max-memory sets none
};

// All reasons; the times of the reply are the caller's. Pure.
PreflightReply examine(const Manifest& manifest, const Offer& offer);

// The clocks of two hosts are compared to half a round trip; a difference above this is a warning, and the
// pause is then estimated from round-trip times.
inline constexpr vmm::Duration kClockTolerance = std::chrono::milliseconds{100};

// At the source: what its clock and the reply's say. Nothing when they agree within the tolerance.
std::optional<Reason> clock_warning(vmm::Duration difference);

}  // namespace migration
