// KvmDirtyLog: the pages that vCPUs (and KVM itself) wrote, from KVM's dirty bitmaps (KVM API 4.8, 4.117).
#pragma once

#include <vector>

#include "vmm/guest/dirty.hpp"
#include "vmm/kvm/vm.hpp"

namespace vmm {

// Three ways, the best that the host offers. With manual protect KVM_GET_DIRTY_LOG only reads, and rearm()
// clears (KVM_CLEAR_DIRTY_LOG) exactly the bits that collect() handed out: a bit that nobody saw is never
// cleared. With INITIALLY_SET in addition, start() costs nothing: every page counts as dirty and handed out,
// and the first rearm() of a page is what arms it. Without manual protect collect() reads and clears at once,
// and rearm() does nothing.
//
// collect() and rearm() must not overlap in time; several rearm() may.
class KvmDirtyLog final : public DirtyTracker {
  public:
    // Both must outlive it.
    KvmDirtyLog(const KvmVm& vm, const GuestMemory& memory);

    Result<void> start() override;
    Result<void> collect(Bitmap& dirty) override;
    Result<void> rearm(PageRange range) override;
    // Costs milliseconds a GiB: outside any pause.
    Result<void> stop() override;

  private:
    struct Slot {
        std::uint32_t number = 0;
        PageRange pages;
        std::uint64_t host_address = 0;
        std::vector<std::uint64_t> scratch;
        // Bits handed out and not cleared since. Each word belongs to one rearm() at a time.
        std::vector<std::uint64_t> collected;
    };

    Result<void> set_logging(const Slot& slot, bool on) const;

    const KvmFd& vm_;
    bool manual_;
    bool initially_set_;
    std::vector<Slot> slots_;
};

}  // namespace vmm
