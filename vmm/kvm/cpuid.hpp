// CPUID tables: what a guest sees, and how it is made from what the host supports.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "vmm/base/result.hpp"
#include "vmm/state/field.hpp"

namespace vmm {

struct CpuidEntry {
    std::uint32_t leaf = 0;
    std::uint32_t subleaf = 0;
    std::uint32_t flags = 0;  // KVM_CPUID_FLAG_SIGNIFCANT_INDEX: the sub-leaf counts
    std::uint32_t eax = 0;
    std::uint32_t ebx = 0;
    std::uint32_t ecx = 0;
    std::uint32_t edx = 0;

    bool operator==(const CpuidEntry&) const = default;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("leaf", self.leaf);
        v.field("subleaf", self.subleaf);
        v.field("flags", self.flags);
        v.field("eax", self.eax);
        v.field("ebx", self.ebx);
        v.field("ecx", self.ecx);
        v.field("edx", self.edx);
    }
};

struct CpuidTable {
    static constexpr StateId id{"cpuid", 1, 1};
    static constexpr std::size_t kMaxEntries = 256;

    std::vector<CpuidEntry> entries;

    const CpuidEntry* find(std::uint32_t leaf, std::uint32_t subleaf = 0) const;
    CpuidEntry* find(std::uint32_t leaf, std::uint32_t subleaf = 0);
    bool operator==(const CpuidTable&) const = default;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.list("entries", self.entries, kMaxEntries);
    }
};

// What of KVM_GET_SUPPORTED_CPUID any guest may have: without what has state that does not travel (VMX, SVM,
// SGX, AMX, CET, processor trace, performance counters). An unknown feature bit stays, an unknown component
// of the XSAVE area does not.
CpuidTable withhold_cpuid(const CpuidTable& supported);
// A leaf of such a feature: it must read as zero.
bool is_withheld_leaf(const CpuidEntry& entry);

// The table of a new guest. `supported` is KVM_GET_SUPPORTED_CPUID. Taken away: what withhold_cpuid() takes.
// Added: what the VMM or the irqchip provides (hypervisor, x2APIC, TSC deadline where `tsc_deadline`) and a
// topology of one package with `vcpus` cores of one thread.
CpuidTable make_guest_cpuid(const CpuidTable& supported, std::uint32_t vcpus, bool tsc_deadline);

// The table as vCPU `index` sees it: only APIC ids differ between vCPUs, and an APIC id is the index.
CpuidTable cpuid_for_vcpu(const CpuidTable& table, std::uint32_t index);

enum class CpuidRegister : std::uint8_t { eax, ebx, ecx, edx };
std::uint32_t& register_of(CpuidEntry& entry, CpuidRegister which);
std::uint32_t register_of(const CpuidEntry& entry, CpuidRegister which);

// Feature bits that are not to be offered: --cpuid-mask LEAF:REG=BITS.
struct CpuidMask {
    std::uint32_t leaf = 0;
    std::uint32_t subleaf = 0;
    CpuidRegister reg = CpuidRegister::eax;
    std::uint32_t bits = 0;
};

// "0x7:ebx=0x10000" or, for a sub-leaf, "0x7.1:eax=0x20"; numbers are decimal or 0x hexadecimal.
Result<CpuidMask> parse_cpuid_mask(std::string_view text);
void apply(const CpuidMask& mask, CpuidTable& table);

}  // namespace vmm
