// ACPI tables (ACPI 6.4) of a hardware-reduced machine: RSDP, XSDT, FADT, MADT and DSDT. Pure.
#pragma once

#include <cstdint>

#include "vmm/base/bytes.hpp"
#include "vmm/guest/platform.hpp"

namespace vmm {

// The tables as they lie at `base`, a multiple of 16 that guests search (5.2.5.1). The RSDP comes first.
// Windows lie below 4 GiB; at most 4096 of them, and 255 vCPUs.
Bytes acpi_tables(const Platform& platform, std::uint64_t base);

}  // namespace vmm
