// Why a vCPU came back from the guest (KVM API, section 5, the fields of kvm_run).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>

namespace vmm {

// The spans lie in memory shared with the kernel: valid until the next run(). What is written to them (reads)
// reaches the guest when the exit is completed by the next run().
struct PioExit {
    std::uint16_t port = 0;
    bool is_write = false;
    std::uint8_t size = 0;  // bytes of one access
    std::span<std::byte>
        data;  // `data.size() / size` accesses (a string instruction has several), all to one port
};
struct MmioExit {
    std::uint64_t address = 0;
    bool is_write = false;
    std::span<std::byte> data;  // 1 to 8 bytes
};
struct ShutdownExit {};  // triple fault
struct SystemEventExit {
    enum class Kind { power_off, reset, other };

    Kind kind = Kind::other;
    std::uint32_t type = 0;  // as KVM numbers them
};
// A signal, immediate_exit, or an INIT taken by a vCPU that waited for one: run again if that is wanted.
struct InterruptedExit {};
// KVM cannot go on with this guest: KVM_EXIT_INTERNAL_ERROR, or an exit we never asked for.
struct ErrorExit {
    std::string text;
};

using Exit = std::variant<PioExit, MmioExit, ShutdownExit, SystemEventExit, InterruptedExit, ErrorExit>;

}  // namespace vmm
