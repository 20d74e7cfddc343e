#include "vmm/kvm/cpuid_compare.hpp"

#include <fmt/format.h>

namespace vmm {

namespace {

// Registers whose bits are features: a bit that the guest has must be there.
struct FeatureRegister {
    std::uint32_t leaf;
    std::uint32_t subleaf;
    CpuidRegister reg;
    std::uint32_t ignored = 0;  // bits that the VMM or the guest itself sets
};

constexpr std::uint32_t kOsxsave = 1U << 27;                        // follows CR4
constexpr std::uint32_t kOspke = 1U << 4;                           // follows CR4
constexpr std::uint32_t kFromVmm = 1U << 31 | 1U << 24 | 1U << 21;  // hypervisor, TSC deadline, x2APIC
constexpr std::uint32_t kHtt = 1U << 28;
constexpr std::uint32_t kCmpLegacy = 1U << 1;

constexpr FeatureRegister kFeatures[] = {
    {0x1, 0, CpuidRegister::ecx, kOsxsave | kFromVmm},
    {0x1, 0, CpuidRegister::edx, kHtt},
    {0x6, 0, CpuidRegister::eax},
    {0x7, 0, CpuidRegister::ebx},
    {0x7, 0, CpuidRegister::ecx, kOspke},
    {0x7, 0, CpuidRegister::edx},
    {0x7, 1, CpuidRegister::eax},
    {0x7, 1, CpuidRegister::edx},
    {0x7, 2, CpuidRegister::edx},
    {0xd, 0, CpuidRegister::eax},
    {0xd, 0, CpuidRegister::edx},
    {0xd, 1, CpuidRegister::eax},
    {0xd, 1, CpuidRegister::ecx},
    {0xd, 1, CpuidRegister::edx},
    {0x80000001, 0, CpuidRegister::ecx, kCmpLegacy},
    {0x80000001, 0, CpuidRegister::edx},
    {0x80000007, 0, CpuidRegister::edx},
    {0x80000008, 0, CpuidRegister::ebx},
    {0x80000021, 0, CpuidRegister::eax},
    {0x40000001, 0, CpuidRegister::eax},
};

constexpr const char* kRegisterNames[] = {"eax", "ebx", "ecx", "edx"};

std::uint32_t value_of(const CpuidTable& table, const FeatureRegister& f) {
    const CpuidEntry* entry = table.find(f.leaf, f.subleaf);
    return entry != nullptr ? register_of(*entry, f.reg) : 0;
}

std::string place(const FeatureRegister& f) {
    const std::string leaf =
        f.subleaf == 0 ? fmt::format("leaf {:#x}", f.leaf) : fmt::format("leaf {:#x}.{}", f.leaf, f.subleaf);
    return fmt::format("{} {}", leaf, kRegisterNames[static_cast<unsigned>(f.reg)]);
}

std::string vendor(const CpuidTable& table) {
    const CpuidEntry* entry = table.find(0);
    std::string name;
    if (entry != nullptr) {
        for (const std::uint32_t part : {entry->ebx, entry->edx, entry->ecx}) {
            for (unsigned shift = 0; shift < 32; shift += 8) {
                name += static_cast<char>((part >> shift) & 0x7f);
            }
        }
    }
    return name;
}

// Where a component of the XSAVE area lies is part of the guest's state: it differs between vendors.
void compare_xsave_layout(const CpuidTable& guest, const CpuidTable& supported,
                          std::vector<std::string>& missing) {
    const CpuidEntry* main = guest.find(0xd);
    for (std::uint32_t i = 2; main != nullptr && i < 32; ++i) {
        const CpuidEntry* ours = guest.find(0xd, i);
        const CpuidEntry* theirs = supported.find(0xd, i);
        if ((main->eax & (1U << i)) != 0 && ours != nullptr && theirs != nullptr &&
            (ours->eax != theirs->eax || ours->ebx != theirs->ebx)) {
            missing.push_back(fmt::format(
                "leaf 0xd.{}: XSAVE component of {} bytes at {}, on the destination {} bytes at {}", i,
                ours->eax, ours->ebx, theirs->eax, theirs->ebx));
        }
    }
}

}  // namespace

std::vector<std::string> cpuid_missing_on(const CpuidTable& guest, const CpuidTable& supported) {
    std::vector<std::string> missing;
    if (vendor(guest) != vendor(supported)) {
        missing.push_back(fmt::format("the guest's CPU is of {}, the destination's of {}", vendor(guest),
                                      vendor(supported)));
    }
    for (const FeatureRegister& f : kFeatures) {
        const std::uint32_t lacking = value_of(guest, f) & ~value_of(supported, f) & ~f.ignored;
        for (unsigned bit = 0; bit < 32; ++bit) {
            if ((lacking & (1U << bit)) == 0) {
                continue;
            }
            const std::string_view name = cpuid_feature_name(f.leaf, f.subleaf, f.reg, bit);
            missing.push_back(fmt::format("{} bit {}{} is not offered by the destination", place(f), bit,
                                          name.empty() ? "" : fmt::format(" ({})", name)));
        }
    }
    compare_xsave_layout(guest, supported, missing);
    const FeatureRegister widths{0x80000008, 0, CpuidRegister::eax};
    const std::uint32_t guest_bits = value_of(guest, widths) & 0xff;
    const std::uint32_t host_bits = value_of(supported, widths) & 0xff;
    if (guest_bits > host_bits) {
        missing.push_back(fmt::format("the guest has physical addresses of {} bits, the destination of {}",
                                      guest_bits, host_bits));
    }
    return missing;
}

}  // namespace vmm
