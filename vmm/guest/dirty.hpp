// Who wrote guest memory since we last looked? The port that migration reads, and the part of it that is
// ours.
#pragma once

#include <atomic>
#include <vector>

#include "vmm/base/bitmap.hpp"
#include "vmm/base/result.hpp"
#include "vmm/guest/address.hpp"

namespace vmm {

// Pages are guest frame numbers. start, collect and stop belong to one thread; rearm may be called by
// several, on ranges that do not overlap.
//
// The order that loses nothing, for each range: collect, rearm, look at the page. A write that comes after
// the look is then seen by the next collect. Rearm before anybody looks, never after.
class DirtyTracker {
  public:
    virtual ~DirtyTracker() = default;
    // From here on writes are noticed. What was written before is not: the caller owes every page.
    virtual Result<void> start() = 0;
    // Adds the pages written since they were last rearmed to `dirty`; never removes a bit.
    virtual Result<void> collect(Bitmap& dirty) = 0;
    // Makes further writes to the range visible again. Its pages must have been collected before. The range
    // starts on a multiple of 64 pages and ends on one, or at the end of its memory region.
    virtual Result<void> rearm(PageRange range) = 0;
    virtual Result<void> stop() = 0;
};

// Writes to guest memory by this process: loaders, virtqueues, DMA. KVM's log does not see them.
class DeviceWriteTracker final : public DirtyTracker {
  public:
    explicit DeviceWriteTracker(std::uint64_t pages);

    // Any thread, at any time; what was marked before start() is forgotten there. Call it after the write has
    // landed: a bit set before would be collected too early.
    void mark(PageRange range);

    Result<void> start() override;
    Result<void> collect(Bitmap& dirty) override;
    Result<void> rearm(PageRange) override { return {}; }
    Result<void> stop() override { return {}; }

  private:
    std::uint64_t pages_;
    std::vector<std::atomic<std::uint64_t>> words_;
};

// All trackers of a machine as one: what migration sees.
class UnionTracker final : public DirtyTracker {
  public:
    // The members must outlive the union.
    explicit UnionTracker(std::vector<DirtyTracker*> members) : members_(std::move(members)) {}

    Result<void> start() override;
    Result<void> collect(Bitmap& dirty) override;
    Result<void> rearm(PageRange range) override;
    Result<void> stop() override;

  private:
    std::vector<DirtyTracker*> members_;
};

}  // namespace vmm
