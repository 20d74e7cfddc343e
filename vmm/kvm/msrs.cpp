#include "vmm/kvm/msrs.hpp"

#include <algorithm>

#include "vmm/kvm/flexible.hpp"

namespace vmm {

namespace {

// KVM refuses 256 or more in one call.
constexpr std::size_t kBatch = 255;

using MsrArray = Flexible<kvm_msrs, kvm_msr_entry>;

// How many of `indices` (at most kBatch) could be read, from the first on.
Result<std::size_t> get_batch(const KvmFd& vcpu, std::span<const std::uint32_t> indices,
                              std::vector<MsrValue>& values) {
    MsrArray array{indices.size()};
    array.header().nmsrs = static_cast<std::uint32_t>(indices.size());
    for (std::size_t i = 0; i < indices.size(); ++i) {
        array[i].index = indices[i];
    }
    const auto got = static_cast<std::size_t>(TRY(vcpu.call_with(KVM_REQUEST(KVM_GET_MSRS), array.header())));
    for (std::size_t i = 0; i < got; ++i) {
        values.push_back({indices[i], array[i].data});
    }
    return got;
}

// Intel SDM volume 4, table 2-2.
std::vector<std::uint32_t> unlisted_msrs() {
    std::vector<std::uint32_t> indices{0x2ff, 0x250, 0x258, 0x259};  // MTRR default type; fixed ranges
    for (std::uint32_t i = 0x268; i <= 0x26f; ++i) {
        indices.push_back(i);
    }
    for (std::uint32_t i = 0x200; i < 0x200 + 2 * 8; ++i) {  // KVM has 8 variable ranges
        indices.push_back(i);
    }
    indices.push_back(0x17a);                                 // MCG_STATUS
    indices.push_back(0x17b);                                 // MCG_CTL
    for (std::uint32_t i = 0x400; i < 0x400 + 4 * 32; ++i) {  // MCi_CTL, STATUS, ADDR, MISC: KVM has 32 banks
        indices.push_back(i);
    }
    return indices;
}

// MSRs of what no guest of ours is offered. Hyper-V's: one of them is a running clock. Capabilities of VMX
// and of the performance counters (Intel SDM volume 4, table 2-2): KVM reports its host's there even to a
// guest without the feature, and another host would refuse them.
bool is_withheld(std::uint32_t index) {
    constexpr std::uint32_t kPerfCapabilities = 0x345;
    const bool hyperv = index >= 0x4000'0000 && index < 0x4000'1000;
    const bool vmx = index >= 0x480 && index <= 0x493;
    return hyperv || vmx || index == kPerfCapabilities;
}

}  // namespace

Result<std::vector<std::uint32_t>> readable_msrs(const KvmFd& vcpu, std::span<const std::uint32_t> listed) {
    std::vector<std::uint32_t> candidates = unlisted_msrs();
    candidates.insert(candidates.end(), listed.begin(), listed.end());
    std::erase_if(candidates, is_withheld);
    std::sort(candidates.begin(), candidates.end());
    candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());

    std::vector<std::uint32_t> readable;
    std::size_t at = 0;
    while (at < candidates.size()) {
        const std::size_t count = std::min(kBatch, candidates.size() - at);
        std::vector<MsrValue> values;
        const std::size_t got = TRY(get_batch(vcpu, std::span{candidates}.subspan(at, count), values));
        for (const MsrValue& msr : values) {
            readable.push_back(msr.index);
        }
        at += got == count ? count : got + 1;  // the one after the last that could be read cannot
    }
    return readable;
}

Result<std::vector<MsrValue>> get_msrs(const KvmFd& vcpu, std::span<const std::uint32_t> indices) {
    std::vector<MsrValue> values;
    values.reserve(indices.size());
    for (std::size_t at = 0; at < indices.size(); at += kBatch) {
        const auto batch = indices.subspan(at, std::min(kBatch, indices.size() - at));
        const std::size_t got = TRY(get_batch(vcpu, batch, values));
        if (got < batch.size()) {
            return fail(Code::kvm, "KVM_GET_MSRS: MSR {:#x} cannot be read", batch[got]);
        }
    }
    return values;
}

std::vector<std::uint32_t> nonzero_msrs(std::span<const MsrValue> values) {
    std::vector<std::uint32_t> indices;
    for (const MsrValue& msr : values) {
        if (msr.value != 0) {
            indices.push_back(msr.index);
        }
    }
    return indices;
}

// KVM's msr_based_features_all_except_vmx (arch/x86/kvm/x86.c), without those of is_withheld().
bool describes_host(std::uint32_t index) {
    constexpr std::uint32_t kBiosSignId = 0x8b;
    constexpr std::uint32_t kPlatformInfo = 0xce;
    constexpr std::uint32_t kArchCapabilities = 0x10a;
    constexpr std::uint32_t kDeCfg = 0xc001'1029;
    return index == kBiosSignId || index == kPlatformInfo || index == kArchCapabilities || index == kDeCfg;
}

Result<void> set_msrs(const KvmFd& vcpu, std::span<const MsrValue> values) {
    for (std::size_t at = 0; at < values.size(); at += kBatch) {
        const auto batch = values.subspan(at, std::min(kBatch, values.size() - at));
        MsrArray array{batch.size()};
        array.header().nmsrs = static_cast<std::uint32_t>(batch.size());
        for (std::size_t i = 0; i < batch.size(); ++i) {
            array[i].index = batch[i].index;
            array[i].data = batch[i].value;
        }
        const auto set =
            static_cast<std::size_t>(TRY(vcpu.call_with(KVM_REQUEST(KVM_SET_MSRS), array.header())));
        if (set < batch.size()) {
            return fail(Code::unsupported, "KVM_SET_MSRS: this host does not take {:#x} for MSR {:#x}",
                        batch[set].value, batch[set].index);
        }
    }
    return {};
}

}  // namespace vmm
