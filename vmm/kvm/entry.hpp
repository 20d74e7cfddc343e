// The state in which the first vCPU starts (Vcpu::enter_at). Interrupts are off in every mode.
#pragma once

#include <cstdint>

namespace vmm {

enum class EntryMode : std::uint8_t {
    protected32,  // flat 32-bit protected mode, paging off: PVH and multiboot 1
    real16,       // real mode, all segments at 0
    long64,       // 64-bit mode: Linux documentation, arch/x86/boot.rst, "64-bit Boot Protocol"
};

// What boot.rst calls __BOOT_CS and __BOOT_DS: entries of the GDT in long64.
inline constexpr std::uint16_t kLongCodeSelector = 0x10;
inline constexpr std::uint16_t kLongDataSelector = 0x18;
inline constexpr std::uint16_t kLongGdtBytes = 0x20;

struct EntryState {
    EntryMode mode = EntryMode::real16;
    std::uint64_t rip = 0;
    std::uint64_t rax = 0;
    std::uint64_t rbx = 0;
    std::uint64_t rsi = 0;
    // Of long64, guest physical: page tables of four levels, and a GDT of kLongGdtBytes.
    std::uint64_t cr3 = 0;
    std::uint64_t gdt = 0;
};

}  // namespace vmm
