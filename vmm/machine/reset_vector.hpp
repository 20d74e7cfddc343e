// The one piece of firmware that the machine has. Linux leaves a hardware-reduced machine by EFI or, where
// there is none, by the BIOS: it does not try the ACPI reset register (arch/x86/kernel/reboot.c).
#pragma once

#include "vmm/base/bytes.hpp"
#include "vmm/guest/platform.hpp"

namespace vmm {

// Where software that restarts a PC jumps in real mode, F000:FFF0; 16 bytes up to 1 MiB.
inline constexpr std::uint64_t kResetVector = 0xf'fff0;

// Real-mode code that writes the reset register.
Bytes reset_vector(const PowerPorts& power);

}  // namespace vmm
