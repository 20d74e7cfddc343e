// FakeKvm: a kernel that keeps what it is given, and a list of what it was asked.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "vmm/guest/memory.hpp"
#include "vmm/kvm/ioctl_port.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vcpu.hpp"

class FakeKvm final : public vmm::IoctlPort {
  public:
    FakeKvm();

    int open(const char* path) override;
    int ioctl(int fd, unsigned long request, unsigned long argument) override;
    vmm::Result<vmm::Mapping> map(int fd, std::size_t size) override;

    // Requests so far, by name without "KVM_", questions about capabilities left out; the list starts again.
    std::vector<std::string> take_calls();

    // What it is like. Before use.
    int open_errno = 0;
    int api_version = KVM_API_VERSION;
    std::map<unsigned long, int> capabilities;  // what KVM_CHECK_EXTENSION answers; the rest is 0
    std::map<unsigned long, int> failing;       // request -> errno
    std::vector<kvm_cpuid_entry2> cpuid;
    std::vector<std::uint32_t> listed_msrs{0x10, 0x174, 0x6e0};
    std::set<std::uint32_t> known_msrs{0x10, 0x174, 0x2ff, 0x6e0};
    std::set<std::uint32_t> read_only_msrs;
    bool tsc_offset = true;
    int tsc_khz = 2'000'000;
    // KVM_RUN that does not come back by immediate_exit: 0, or an errno. Called on vCPU threads.
    std::function<int(kvm_run&)> on_run = [](kvm_run&) { return EINTR; };

    // What it has been given.
    std::map<std::uint32_t, std::uint64_t> msrs;
    std::vector<kvm_irq_routing_entry> routing;
    std::vector<kvm_enable_cap> enabled;
    std::vector<std::uint32_t> irq_levels;  // gsi * 2 + level
    std::vector<kvm_irqfd> irqfds;
    std::vector<kvm_ioeventfd> ioeventfds;

    // The dirty log: the kernel's bits of each slot.
    struct Slot {
        kvm_userspace_memory_region config{};
        std::vector<std::uint64_t> bits;
        bool logging() const { return (config.flags & KVM_MEM_LOG_DIRTY_PAGES) != 0; }
        std::uint64_t pages() const { return config.memory_size / 4096; }
    };
    std::map<std::uint32_t, Slot> slots;
    std::uint64_t manual_flags = 0;
    std::vector<kvm_clear_dirty_log> clears;
    void guest_writes(std::uint32_t slot, std::uint64_t page);

  private:
    int serve(int fd, unsigned long request, unsigned long argument);
    int run(int fd);
    int set_slot(const kvm_userspace_memory_region& config);
    int get_dirty(const kvm_dirty_log& log);
    int clear_dirty(const kvm_clear_dirty_log& log);
    int get_msrs(kvm_msrs& array);
    int set_msrs(kvm_msrs& array);
    int get_cpuid(kvm_cpuid2& list);
    int attribute(unsigned long request, const kvm_device_attr& attr);
    int transfer(int fd, unsigned long request, unsigned long argument, const char* name);

    std::mutex mutex_;
    std::vector<std::string> calls_;
    std::map<int, kvm_run*> shared_;
    std::map<std::string, std::vector<char>> kept_;
    std::uint64_t tsc_offset_value_ = 0;
};

// A machine's worth of fake: one region of 130 pages unless said otherwise.
struct FakeVm {
    explicit FakeVm(FakeKvm& fake, std::uint64_t pages = 130);

    vmm::Kvm kvm;
    vmm::GuestMemory memory;
    std::unique_ptr<vmm::KvmVm> vm;

    std::unique_ptr<vmm::Vcpu> vcpu(std::uint32_t index = 0, std::uint32_t tsc_khz = 0);
};
