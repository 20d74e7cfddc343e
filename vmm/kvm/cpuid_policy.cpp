// What of the host's CPUID any guest may have (withhold_cpuid), what a new guest gets (make_guest_cpuid), and
// what differs between its vCPUs.
//
// Sources: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; KVM's
// Documentation/virt/kvm/x86/cpuid.rst.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>

#include "vmm/kvm/abi.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace vmm {

namespace {

constexpr std::uint32_t bit(unsigned n) {
    return std::uint32_t{1} << n;
}

constexpr std::uint32_t field(std::uint32_t value, unsigned shift, unsigned width) {
    return (value & (bit(width) - 1)) << shift;
}

// Replaces `width` bits from `shift` on.
void set_field(std::uint32_t& reg, unsigned shift, unsigned width, std::uint32_t value) {
    reg = (reg & ~field(~std::uint32_t{0}, shift, width)) | field(value, shift, width);
}

// Components of XCR0 that a guest may have: x87, SSE, AVX, MPX, AVX-512, PKRU. A list of what may be, not of
// what may not: new state usually comes with a component.
constexpr std::uint32_t kXsaveComponents = 0x2ff & ~bit(8);

// The state behind these does not travel, or (performance counters) means something else on another CPU.
constexpr CpuidMask kTakenAway[] = {
    {0x1, 0, CpuidRegister::ecx, bit(5) | bit(15)},  // VMX; PDCM
    {0x7, 0, CpuidRegister::ebx, bit(2) | bit(25)},  // SGX; Intel PT
    // SGX launch configuration; CET shadow stacks, whose pointer only KVM_GET_ONE_REG has
    {0x7, 0, CpuidRegister::ecx, bit(30) | bit(7)},
    // AMX; architectural LBR; CET branch tracking
    {0x7, 0, CpuidRegister::edx, bit(22) | bit(24) | bit(25) | bit(19) | bit(20)},
    {0x7, 1, CpuidRegister::eax, bit(21) | bit(8)},  // AMX-FP16; extended performance counters
    {0x7, 1, CpuidRegister::edx, bit(8) | bit(18)},  // AMX-COMPLEX; CET supervisor shadow stacks
    {0xd, 0, CpuidRegister::eax, ~kXsaveComponents},
    {0xd, 0, CpuidRegister::edx, ~std::uint32_t{0}},
    {0xd, 1, CpuidRegister::ecx, ~std::uint32_t{0}},  // supervisor components: KVM_GET_XSAVE has none
    {0xd, 1, CpuidRegister::edx, ~std::uint32_t{0}},
    {0x80000001, 0, CpuidRegister::ecx,
     bit(2) | bit(23) | bit(24) | bit(28)},  // SVM; AMD performance counters
};

// Leaves of the same features: they read as zero. 0xa performance counters, 0x12 SGX, 0x14 PT, 0x1c LBR, 0x1d
// and 0x1e AMX, 0x23 performance counters, 0x8000000a SVM, 0x8000001f memory encryption, 0x80000022
// performance counters.
constexpr std::uint32_t kEmptyLeaves[] = {0xa,  0x12, 0x14,       0x1c,       0x1d,
                                          0x1e, 0x23, 0x8000000a, 0x8000001f, 0x80000022};

// 0xd.0 ecx is the size of the XSAVE area with everything in it that eax names; KVM keeps ebx itself.
void fit_xsave_size(CpuidTable& table) {
    CpuidEntry* main = table.find(0xd);
    if (main == nullptr) {
        return;
    }
    std::uint32_t size = 576;  // legacy area and header
    for (std::uint32_t i = 2; i < 32; ++i) {
        const CpuidEntry* component = table.find(0xd, i);
        if ((main->eax & bit(i)) != 0 && component != nullptr) {
            size = std::max(size, component->ebx + component->eax);
        }
    }
    main->ebx = size;
    main->ecx = size;
}

// One package, cores of one thread, the last-level cache shared by all.
void set_cache_sharing(CpuidTable& table, std::uint32_t vcpus) {
    for (CpuidEntry& e : table.entries) {
        if ((e.leaf != 0x4 && e.leaf != 0x8000001d) || (e.eax & 0x1f) == 0) {
            continue;
        }
        const std::uint32_t level = (e.eax >> 5) & 0x7;
        set_field(e.eax, 14, 12, level >= 3 ? vcpus - 1 : 0);
        if (e.leaf == 0x4) {
            set_field(e.eax, 26, 6, std::min<std::uint32_t>(vcpus - 1, 63));
        }
    }
}

// Extended topology, leaves 0xb and 0x1f; edx (the APIC id) is the vCPU's.
void set_extended_topology(CpuidTable& table, std::uint32_t leaf, std::uint32_t vcpus) {
    const auto id_bits = static_cast<std::uint32_t>(std::bit_width(vcpus - 1));
    constexpr std::uint32_t kThreads = 1;
    constexpr std::uint32_t kCores = 2;
    std::erase_if(table.entries, [&](const CpuidEntry& e) { return e.leaf == leaf; });
    table.entries.push_back({leaf, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0, 1, 0 | (kThreads << 8), 0});
    table.entries.push_back({leaf, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, id_bits, vcpus, 1 | (kCores << 8), 0});
    table.entries.push_back({leaf, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 0, 0, 2, 0});
}

void set_topology(CpuidTable& table, std::uint32_t vcpus) {
    if (CpuidEntry* e = table.find(0x1)) {
        set_field(e->ebx, 16, 8, vcpus);
        set_field(e->edx, 28, 1, vcpus > 1 ? 1 : 0);  // HTT: the count above is valid
    }
    if (CpuidEntry* e = table.find(0x80000001)) {
        const bool amd = table.find(0x8000001e) != nullptr;
        set_field(e->ecx, 1, 1, amd && vcpus > 1 ? 1 : 0);  // CmpLegacy
    }
    if (CpuidEntry* e = table.find(0x80000008)) {
        set_field(e->ecx, 0, 8, vcpus - 1);
        set_field(e->ecx, 12, 4, static_cast<std::uint32_t>(std::bit_width(vcpus - 1)));
    }
    if (CpuidEntry* e = table.find(0x8000001e)) {
        e->ebx = 0;  // one thread a core; the core id is the vCPU's
        e->ecx = 0;  // node 0 of one
    }
    set_cache_sharing(table, vcpus);
    const CpuidEntry* basic = table.find(0x0);
    const std::uint32_t highest = basic != nullptr ? basic->eax : 0;
    if (highest >= 0xb) {
        set_extended_topology(table, 0xb, vcpus);
    }
    if (table.find(0x1f) != nullptr) {
        set_extended_topology(table, 0x1f, vcpus);
    }
}

// The brand string: KVM leaves it empty, and Linux then names the first CPU of AMD's line. One for all hosts,
// as a guest goes from one to another.
void set_brand(CpuidTable& table) {
    constexpr std::string_view kBrand = "KVM virtual CPU";
    const CpuidEntry* extended = table.find(0x80000000);
    if (extended == nullptr || extended->eax < 0x80000004) {
        return;
    }
    std::array<std::uint32_t, 12> text{};
    std::memcpy(text.data(), kBrand.data(), kBrand.size());
    for (std::uint32_t i = 0; i < 3; ++i) {
        const std::uint32_t leaf = 0x80000002 + i;
        std::erase_if(table.entries, [leaf](const CpuidEntry& e) { return e.leaf == leaf; });
        table.entries.push_back({leaf, 0, 0, text[4 * i], text[4 * i + 1], text[4 * i + 2], text[4 * i + 3]});
    }
}

}  // namespace

bool is_withheld_leaf(const CpuidEntry& e) {
    if (e.leaf == 0xd) {
        return e.subleaf >= 32 || (e.subleaf >= 2 && (kXsaveComponents & bit(e.subleaf)) == 0);
    }
    return std::find(std::begin(kEmptyLeaves), std::end(kEmptyLeaves), e.leaf) != std::end(kEmptyLeaves);
}

CpuidTable withhold_cpuid(const CpuidTable& supported) {
    CpuidTable table = supported;
    for (const CpuidMask& mask : kTakenAway) {
        apply(mask, table);
    }
    for (CpuidEntry& e : table.entries) {
        if (is_withheld_leaf(e)) {
            e.eax = e.ebx = e.ecx = e.edx = 0;
        }
    }
    return table;
}

CpuidTable make_guest_cpuid(const CpuidTable& supported, std::uint32_t vcpus, bool tsc_deadline) {
    CpuidTable table = withhold_cpuid(supported);
    if (CpuidEntry* e = table.find(0x1)) {
        e->ecx |= bit(31) | bit(21);  // hypervisor; x2APIC, which the LAPIC in the kernel has
        set_field(e->ecx, 24, 1, tsc_deadline ? 1 : 0);
    }
    fit_xsave_size(table);
    set_topology(table, vcpus);
    set_brand(table);
    return cpuid_for_vcpu(table, 0);  // the host puts the ids of the CPU we happened to run on into it
}

CpuidTable cpuid_for_vcpu(const CpuidTable& table, std::uint32_t index) {
    CpuidTable own = table;
    for (CpuidEntry& e : own.entries) {
        if (e.leaf == 0x1) {
            set_field(e.ebx, 24, 8, index);
        } else if (e.leaf == 0xb || e.leaf == 0x1f) {
            e.edx = index;
        } else if (e.leaf == 0x8000001e) {
            e.eax = index;
            set_field(e.ebx, 0, 8, index);
        }
    }
    return own;
}

}  // namespace vmm
