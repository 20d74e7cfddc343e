#include "vmm/kvm/kvm.hpp"

#include "vmm/kvm/flexible.hpp"

namespace vmm {

namespace {

Failure cannot_open(const char* path, int error) {
    const char* advice = "check that it is a KVM device";
    if (error == ENOENT) {
        advice =
            "load the module kvm_intel or kvm_amd, and enable virtualization in the firmware (in a virtual "
            "machine: "
            "nested virtualization)";
    } else if (error == EACCES || error == EPERM) {
        advice = "join the group that owns it (usually kvm)";
    } else if (error == ENODEV || error == ENXIO) {
        advice = "enable virtualization in the firmware";
    }
    return Failure{Error::from_errno(Code::kvm, fmt::format("cannot open {} ({})", path, advice), error)};
}

}  // namespace

Result<Kvm> Kvm::open(IoctlPort& port, const char* path) {
    UniqueFd raw{port.open(path)};
    if (!raw) {
        return cannot_open(path, errno);
    }
    KvmFd fd{port, std::move(raw)};
    const int version = TRY(fd.call(KVM_REQUEST(KVM_GET_API_VERSION)).context(path));
    if (version != KVM_API_VERSION) {
        // KVM API 4.1: applications refuse to run on anything but 12.
        return fail(Code::version, "{}: KVM API version {}, only {} is known: use another kernel", path,
                    version, KVM_API_VERSION);
    }
    const Capabilities capabilities = TRY(read_capabilities(fd).context(path));
    const int run_bytes = TRY(fd.call(KVM_REQUEST(KVM_GET_VCPU_MMAP_SIZE)).context(path));
    if (static_cast<std::size_t>(run_bytes) < sizeof(kvm_run)) {
        return fail(Code::kvm, "{}: KVM_GET_VCPU_MMAP_SIZE says {} bytes, too few", path, run_bytes);
    }
    return Kvm{std::move(fd), capabilities, static_cast<std::size_t>(run_bytes)};
}

Result<CpuidTable> Kvm::supported_cpuid() const {
    Flexible<kvm_cpuid2, kvm_cpuid_entry2> list{CpuidTable::kMaxEntries};
    list.header().nent = CpuidTable::kMaxEntries;
    TRY(fd_.call_with(KVM_REQUEST(KVM_GET_SUPPORTED_CPUID), list.header()));
    CpuidTable table;
    for (std::uint32_t i = 0; i < list.header().nent; ++i) {
        const kvm_cpuid_entry2& e = list[i];
        table.entries.push_back({e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx});
    }
    return table;
}

Result<std::vector<std::uint32_t>> Kvm::msr_indices() const {
    constexpr std::uint32_t kMax = 4096;
    Flexible<kvm_msr_list, std::uint32_t> list{kMax};
    list.header().nmsrs = kMax;
    TRY(fd_.call_with(KVM_REQUEST(KVM_GET_MSR_INDEX_LIST), list.header()));
    std::vector<std::uint32_t> indices;
    for (std::uint32_t i = 0; i < list.header().nmsrs; ++i) {
        indices.push_back(list[i]);
    }
    return indices;
}

Result<KvmFd> Kvm::create_vm() const {
    return KvmFd{fd_.port(), UniqueFd{TRY(fd_.call(KVM_REQUEST(KVM_CREATE_VM)))}};
}

}  // namespace vmm
