#include "tests/unit/kvm/fake_kvm.hpp"

#include <fcntl.h>

#include <array>
#include <cstring>

namespace {

struct Name {
    unsigned long request;
    const char* name;
};
#define REQUEST(NAME)     \
    Name {                \
        KVM_##NAME, #NAME \
    }
constexpr std::array kNames{
    REQUEST(GET_API_VERSION),    REQUEST(CREATE_VM),
    REQUEST(GET_VCPU_MMAP_SIZE), REQUEST(GET_SUPPORTED_CPUID),
    REQUEST(GET_MSR_INDEX_LIST), REQUEST(ENABLE_CAP),
    REQUEST(SET_TSS_ADDR),       REQUEST(SET_IDENTITY_MAP_ADDR),
    REQUEST(CREATE_IRQCHIP),     REQUEST(CREATE_PIT2),
    REQUEST(SET_GSI_ROUTING),    REQUEST(SET_USER_MEMORY_REGION),
    REQUEST(CREATE_VCPU),        REQUEST(SET_CPUID2),
    REQUEST(GET_TSC_KHZ),        REQUEST(SET_TSC_KHZ),
    REQUEST(HAS_DEVICE_ATTR),    REQUEST(GET_DEVICE_ATTR),
    REQUEST(SET_DEVICE_ATTR),    REQUEST(GET_MSRS),
    REQUEST(SET_MSRS),           REQUEST(GET_MP_STATE),
    REQUEST(SET_MP_STATE),       REQUEST(GET_REGS),
    REQUEST(SET_REGS),           REQUEST(GET_SREGS),
    REQUEST(SET_SREGS),          REQUEST(GET_SREGS2),
    REQUEST(SET_SREGS2),         REQUEST(GET_XCRS),
    REQUEST(SET_XCRS),           REQUEST(GET_XSAVE),
    REQUEST(GET_XSAVE2),         REQUEST(SET_XSAVE),
    REQUEST(GET_DEBUGREGS),      REQUEST(SET_DEBUGREGS),
    REQUEST(GET_LAPIC),          REQUEST(SET_LAPIC),
    REQUEST(GET_VCPU_EVENTS),    REQUEST(SET_VCPU_EVENTS),
    REQUEST(GET_IRQCHIP),        REQUEST(SET_IRQCHIP),
    REQUEST(GET_PIT2),           REQUEST(SET_PIT2),
    REQUEST(GET_CLOCK),          REQUEST(SET_CLOCK),
    REQUEST(KVMCLOCK_CTRL),      REQUEST(RUN),
    REQUEST(IRQ_LINE),           REQUEST(GET_DIRTY_LOG),
    REQUEST(CLEAR_DIRTY_LOG),    REQUEST(IRQFD),
    REQUEST(IOEVENTFD),
};

const char* name_of(unsigned long request) {
    for (const Name& name : kNames) {
        if (name.request == request) {
            return name.name;
        }
    }
    return "unknown";
}

template <typename T>
T& at(unsigned long argument) {
    return *reinterpret_cast<T*>(argument);
}

int new_fd() {
    return ::open("/dev/null", O_RDWR | O_CLOEXEC);
}

}  // namespace

FakeKvm::FakeKvm() {
    for (const int capability : {KVM_CAP_USER_MEMORY,
                                 KVM_CAP_SET_TSS_ADDR,
                                 KVM_CAP_SET_IDENTITY_MAP_ADDR,
                                 KVM_CAP_IRQCHIP,
                                 KVM_CAP_IRQ_ROUTING,
                                 KVM_CAP_IRQFD,
                                 KVM_CAP_IOEVENTFD,
                                 KVM_CAP_PIT2,
                                 KVM_CAP_PIT_STATE2,
                                 KVM_CAP_EXT_CPUID,
                                 KVM_CAP_MP_STATE,
                                 KVM_CAP_VCPU_EVENTS,
                                 KVM_CAP_DEBUGREGS,
                                 KVM_CAP_XSAVE,
                                 KVM_CAP_XCRS,
                                 KVM_CAP_GET_TSC_KHZ,
                                 KVM_CAP_IMMEDIATE_EXIT,
                                 KVM_CAP_SREGS2,
                                 KVM_CAP_EXCEPTION_PAYLOAD,
                                 KVM_CAP_X86_TRIPLE_FAULT_EVENT,
                                 KVM_CAP_TSC_DEADLINE_TIMER,
                                 KVM_CAP_KVMCLOCK_CTRL,
                                 KVM_CAP_VCPU_ATTRIBUTES}) {
        capabilities[static_cast<unsigned long>(capability)] = 1;
    }
    capabilities[KVM_CAP_ADJUST_CLOCK] = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
    capabilities[KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2] =
        KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
    capabilities[KVM_CAP_XSAVE2] = 4096;
    capabilities[KVM_CAP_MAX_VCPUS] = 8;
    cpuid.push_back({0, 0, 0, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69, {}});
    cpuid.push_back({1, 0, 0, 0x306c3, 0x07000800, 0x00000201, 0x00000011, {}});
}

int FakeKvm::open(const char*) {
    if (open_errno != 0) {
        errno = open_errno;
        return -1;
    }
    return new_fd();
}

vmm::Result<vmm::Mapping> FakeKvm::map(int fd, std::size_t size) {
    auto mapping = vmm::Mapping::anonymous(size, vmm::Backing::small);
    const std::lock_guard lock{mutex_};
    shared_[fd] = reinterpret_cast<kvm_run*>(mapping->bytes().data());
    return mapping;
}

std::vector<std::string> FakeKvm::take_calls() {
    const std::lock_guard lock{mutex_};
    return std::exchange(calls_, {});
}

int FakeKvm::ioctl(int fd, unsigned long request, unsigned long argument) {
    if (request == KVM_RUN) {
        const int error = run(fd);
        errno = error;
        return error == 0 ? 0 : -1;
    }
    const std::lock_guard lock{mutex_};
    if (request == KVM_CHECK_EXTENSION) {
        const auto found = capabilities.find(argument);
        return found == capabilities.end() ? 0 : found->second;
    }
    calls_.emplace_back(name_of(request));
    if (const auto found = failing.find(request); found != failing.end()) {
        errno = found->second;
        return -1;
    }
    return serve(fd, request, argument);
}

int FakeKvm::run(int fd) {
    kvm_run* shared = nullptr;
    {
        const std::lock_guard lock{mutex_};
        calls_.emplace_back("RUN");
        shared = shared_.at(fd);
    }
    if (__atomic_load_n(&shared->immediate_exit, __ATOMIC_SEQ_CST) != 0) {
        return EINTR;
    }
    return on_run(*shared);
}

int FakeKvm::serve(int fd, unsigned long request, unsigned long argument) {
    switch (request) {
        case KVM_GET_API_VERSION:
            return api_version;
        case KVM_GET_VCPU_MMAP_SIZE:
            return 2 * 4096;
        case KVM_CREATE_VM:
        case KVM_CREATE_VCPU:
            return new_fd();
        case KVM_GET_SUPPORTED_CPUID:
            return get_cpuid(at<kvm_cpuid2>(argument));
        case KVM_GET_MSR_INDEX_LIST: {
            auto& list = at<kvm_msr_list>(argument);
            list.nmsrs = static_cast<std::uint32_t>(listed_msrs.size());
            std::memcpy(&list + 1, listed_msrs.data(), listed_msrs.size() * sizeof(std::uint32_t));
            return 0;
        }
        case KVM_ENABLE_CAP:
            enabled.push_back(at<kvm_enable_cap>(argument));
            if (enabled.back().cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
                manual_flags = enabled.back().args[0];
            }
            return 0;
        case KVM_SET_GSI_ROUTING: {
            auto& table = at<kvm_irq_routing>(argument);
            routing.resize(table.nr);
            std::memcpy(routing.data(), &table + 1, table.nr * sizeof(kvm_irq_routing_entry));
            return 0;
        }
        case KVM_GET_TSC_KHZ:
            return tsc_khz;
        case KVM_IRQ_LINE:
            irq_levels.push_back(at<kvm_irq_level>(argument).irq * 2 + at<kvm_irq_level>(argument).level);
            return 0;
        case KVM_IRQFD:
            irqfds.push_back(at<kvm_irqfd>(argument));
            return 0;
        case KVM_IOEVENTFD:
            ioeventfds.push_back(at<kvm_ioeventfd>(argument));
            return 0;
        case KVM_SET_USER_MEMORY_REGION:
            return set_slot(at<kvm_userspace_memory_region>(argument));
        case KVM_GET_DIRTY_LOG:
            return get_dirty(at<kvm_dirty_log>(argument));
        case KVM_CLEAR_DIRTY_LOG:
            return clear_dirty(at<kvm_clear_dirty_log>(argument));
        case KVM_GET_MSRS:
            return get_msrs(at<kvm_msrs>(argument));
        case KVM_SET_MSRS:
            return set_msrs(at<kvm_msrs>(argument));
        case KVM_HAS_DEVICE_ATTR:
        case KVM_GET_DEVICE_ATTR:
        case KVM_SET_DEVICE_ATTR:
            return attribute(request, at<kvm_device_attr>(argument));
        default:
            return transfer(fd, request, argument, name_of(request));
    }
}

int FakeKvm::set_slot(const kvm_userspace_memory_region& config) {
    Slot& slot = slots[config.slot];
    const bool was_logging = slot.logging();
    slot.config = config;
    if (slot.logging() && !was_logging) {
        const bool set = (manual_flags & KVM_DIRTY_LOG_INITIALLY_SET) != 0;
        slot.bits.assign((slot.pages() + 63) / 64, 0);
        for (std::uint64_t page = 0; set && page < slot.pages(); ++page) {
            slot.bits[page / 64] |= std::uint64_t{1} << (page % 64);
        }
    }
    return 0;
}

void FakeKvm::guest_writes(std::uint32_t slot, std::uint64_t page) {
    slots.at(slot).bits.at(page / 64) |= std::uint64_t{1} << (page % 64);
}

int FakeKvm::get_dirty(const kvm_dirty_log& log) {
    Slot& slot = slots.at(log.slot);
    std::memcpy(log.dirty_bitmap, slot.bits.data(), slot.bits.size() * sizeof(std::uint64_t));
    if ((manual_flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) == 0) {
        std::fill(slot.bits.begin(), slot.bits.end(), 0);
    }
    return 0;
}

// KVM API 4.117: the rules for the range are checked as the kernel does.
int FakeKvm::clear_dirty(const kvm_clear_dirty_log& log) {
    Slot& slot = slots.at(log.slot);
    const std::uint64_t end = log.first_page + log.num_pages;
    if (log.first_page % 64 != 0 || end > slot.pages() || (log.num_pages % 64 != 0 && end != slot.pages())) {
        errno = EINVAL;
        return -1;
    }
    const auto* words = static_cast<const std::uint64_t*>(log.dirty_bitmap);
    for (std::size_t i = 0; i < (log.num_pages + 63) / 64; ++i) {
        slot.bits[log.first_page / 64 + i] &= ~words[i];
    }
    clears.push_back(log);
    return 0;
}

int FakeKvm::get_msrs(kvm_msrs& array) {
    auto* entries = reinterpret_cast<kvm_msr_entry*>(&array + 1);
    for (std::uint32_t i = 0; i < array.nmsrs; ++i) {
        if (!known_msrs.contains(entries[i].index)) {
            return static_cast<int>(i);
        }
        entries[i].data = msrs[entries[i].index];
    }
    return static_cast<int>(array.nmsrs);
}

int FakeKvm::set_msrs(kvm_msrs& array) {
    const auto* entries = reinterpret_cast<const kvm_msr_entry*>(&array + 1);
    for (std::uint32_t i = 0; i < array.nmsrs; ++i) {
        if (!known_msrs.contains(entries[i].index) || read_only_msrs.contains(entries[i].index)) {
            return static_cast<int>(i);
        }
        calls_.push_back(fmt::format("MSR {:#x}", std::uint32_t{entries[i].index}));
        msrs[entries[i].index] = entries[i].data;
    }
    return static_cast<int>(array.nmsrs);
}

int FakeKvm::get_cpuid(kvm_cpuid2& list) {
    list.nent = static_cast<std::uint32_t>(cpuid.size());
    std::memcpy(&list + 1, cpuid.data(), cpuid.size() * sizeof(kvm_cpuid_entry2));
    return 0;
}

int FakeKvm::attribute(unsigned long request, const kvm_device_attr& attr) {
    if (!tsc_offset) {
        errno = ENXIO;
        return -1;
    }
    if (request == KVM_GET_DEVICE_ATTR) {
        at<std::uint64_t>(attr.addr) = tsc_offset_value_;
    } else if (request == KVM_SET_DEVICE_ATTR) {
        tsc_offset_value_ = at<std::uint64_t>(attr.addr);
    }
    return 0;
}

// GET_X gives what SET_X was given, of the same descriptor (and chip).
int FakeKvm::transfer(int fd, unsigned long request, unsigned long argument, const char* name) {
    const std::string full = name;
    std::size_t size = _IOC_SIZE(request);
    if (full.size() < 5 || size == 0 || (!full.starts_with("GET_") && !full.starts_with("SET_"))) {
        return 0;
    }
    std::string what = full.substr(4);
    if (what == "XSAVE2") {
        what = "XSAVE";
    }
    if (what == "XSAVE") {
        size = 4096;
    }
    std::string key = fmt::format("{} {}", what, fd);
    if (what == "IRQCHIP") {
        key += fmt::format(" {}", std::uint32_t{at<kvm_irqchip>(argument).chip_id});
    }
    auto* bytes = reinterpret_cast<char*>(argument);
    if (full[0] == 'S') {
        kept_[key].assign(bytes, bytes + size);
    } else if (const auto found = kept_.find(key); found != kept_.end()) {
        std::memcpy(bytes, found->second.data(), size);
    }
    return 0;
}

namespace {

vmm::GuestMemory memory_at_zero(std::uint64_t pages) {
    const vmm::RegionConfig config{vmm::Gpa{0}, pages * 4096};
    return std::move(*vmm::GuestMemory::create({&config, 1}, vmm::Backing::small));
}

}  // namespace

FakeVm::FakeVm(FakeKvm& fake, std::uint64_t pages)
    : kvm(std::move(*vmm::Kvm::open(fake))),
      memory(memory_at_zero(pages)),
      vm(std::move(*vmm::KvmVm::create(kvm, &memory))) {
}

std::unique_ptr<vmm::Vcpu> FakeVm::vcpu(std::uint32_t index, std::uint32_t tsc_khz) {
    return std::move(*vmm::Vcpu::create(*vm, index, *kvm.supported_cpuid(), tsc_khz));
}
