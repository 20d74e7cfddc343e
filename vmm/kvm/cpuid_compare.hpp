// Would a guest with this CPUID table run on a host that supports that one?
#pragma once

#include <string>
#include <vector>

#include "vmm/kvm/cpuid.hpp"

namespace vmm {

// One readable line for each thing that the guest was promised and the host does not support; empty: it fits.
// Feature bits must be a subset; vendor and the layout of the XSAVE area must be equal; the host's physical
// addresses must be as wide. Family, model, brand, caches and topology are the guest's own and are not
// compared. TSC deadline, x2APIC and the hypervisor bit come from the VMM: see missing_on() in
// compatibility.hpp.
std::vector<std::string> cpuid_missing_on(const CpuidTable& guest, const CpuidTable& supported);

// The usual name of a feature bit ("avx512f"), or "" when it has none here.
std::string_view cpuid_feature_name(std::uint32_t leaf, std::uint32_t subleaf, CpuidRegister reg,
                                    unsigned bit);

}  // namespace vmm
