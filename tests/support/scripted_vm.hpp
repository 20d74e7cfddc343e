// Machines without KVM: memory that a script writes, a dirty log that behaves like KVM's, and a state of a
// few bytes.
#pragma once

#include <atomic>
#include <functional>
#include <optional>

#include "migration/ports.hpp"

namespace tests {

// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 in miniature: collecting shows the log, rearming clears what was shown.
// Keeps the rules of vmm::DirtyTracker to the letter, so that a caller who breaks them loses a page here as
// it would there.
class ScriptedLog final : public vmm::DirtyTracker {
  public:
    explicit ScriptedLog(std::uint64_t pages) : dirty_(pages), shown_(pages) {}

    vmm::Result<void> start() override;
    vmm::Result<void> collect(vmm::Bitmap& dirty) override;
    vmm::Result<void> rearm(vmm::PageRange range) override;
    vmm::Result<void> stop() override;

    // A vCPU wrote that page.
    void vcpu_wrote(std::uint64_t page);
    // What the guest does in the instant before a range is cleared.
    std::function<void(vmm::PageRange)> before_clear;
    bool armed() const { return armed_; }

  private:
    std::mutex mutex_;
    bool armed_ = false;
    vmm::Bitmap dirty_;
    vmm::Bitmap shown_;
};

// Small RAM from 0.
vmm::GuestMemory make_memory(std::uint64_t pages);
// Each page of its own contents.
void fill_page(vmm::GuestMemory& memory, std::uint64_t page, std::uint8_t seed);

// A disk that both sides can open and one at a time may use.
class ScriptedDisk {
  public:
    vmm::Result<void> take(const void* who) {
        const std::lock_guard lock{mutex_};
        if (owner_ != nullptr && owner_ != who) {
            return vmm::fail(vmm::Code::refused, "the disk is in use");
        }
        owner_ = who;
        return {};
    }
    void give(const void* who) {
        const std::lock_guard lock{mutex_};
        if (owner_ == who) {
            owner_ = nullptr;
        }
    }
    bool owned_by(const void* who) const {
        const std::lock_guard lock{mutex_};
        return owner_ == who;
    }

  private:
    mutable std::mutex mutex_;
    const void* owner_ = nullptr;
};

class ScriptedSource final : public migration::SourceVm {
  public:
    explicit ScriptedSource(std::uint64_t pages)
        : memory_(make_memory(pages)), log(memory_.page_limit()), union_({&log, &memory_.device_writes()}) {}

    vmm::Result<migration::Manifest> manifest() override;
    vmm::Duration stop_time() const override { return {}; }
    vmm::GatheredBytes boot_image() override;
    bool ended() const override { return has_ended; }
    vmm::GuestMemory& memory() override { return memory_; }
    vmm::DirtyTracker& tracker() override { return union_; }
    vmm::Result<vmm::Drain> pause(vmm::Duration limit) override;
    vmm::Result<vmm::Bytes> save() override;
    vmm::Result<void> begin_flush() override {
        ++flushes;
        return {};
    }
    vmm::Result<void> wait_flushed(vmm::Duration limit) override;
    vmm::Result<void> give_exclusives(vmm::Duration limit) override;
    void take_exclusives() override { (void)disk->take(this); }
    vmm::Result<void> resume() override;
    void release() override;

    // A vCPU of the guest writes a page: in memory, and in the log.
    void guest_writes(std::uint64_t page, std::uint8_t seed);

    // What happens at these moments; the guest still runs in on_pause.
    std::function<void()> on_pause;
    std::function<void()> on_save;
    std::function<void()> on_give;   // once the disk is free
    std::function<void()> on_stall;  // waiting for storage that does not answer: then it does not
    std::optional<vmm::Error> pause_error;
    vmm::Drain drain;  // what a pause reports
    ScriptedDisk own_disk;
    ScriptedDisk* disk = &own_disk;
    std::atomic<bool> running = true;
    std::atomic<bool> released = false;
    std::atomic<int> flushes = 0;
    std::atomic<bool> has_ended = false;
    bool user_paused = false;
    const vmm::Bytes image = vmm::Bytes(5000, std::byte{7});
    std::uint64_t epoch = 4;

  private:
    vmm::GuestMemory memory_;

  public:
    ScriptedLog log;

  private:
    vmm::UnionTracker union_;
};

class ScriptedDestination : public migration::DestinationVm {
  public:
    migration::PreflightReply examine(const migration::Manifest& manifest) override;
    vmm::Result<Costs> prepare(const migration::Manifest& manifest,
                               std::span<const std::byte> boot_image) override;
    vmm::GuestMemory& memory() override { return *memory_; }
    vmm::Result<void> restore(std::span<const std::byte> snapshot,
                              std::optional<vmm::Duration> elapsed) override;
    vmm::Result<void> take_exclusives() override { return disk->take(this); }
    void give_exclusives() override { disk->give(this); }
    vmm::Result<Entry> start() override;

    ScriptedDisk own_disk;
    ScriptedDisk* disk = &own_disk;
    std::vector<migration::Reason> reasons;  // to refuse with
    std::optional<vmm::Error> restore_error;
    std::optional<vmm::Error> start_error;
    std::function<void()> on_prepare;   // while the source waits
    std::function<void()> after_pages;  // before the state is loaded
    vmm::Bytes snapshot;
    vmm::Bytes boot_image;
    std::atomic<bool> running = false;
    std::atomic<bool> placed = false;
    bool prepared() const { return memory_.has_value(); }

  private:
    bool paused_ = false;
    std::optional<vmm::GuestMemory> memory_;
};

// The first page in which both differ; nothing when they are equal.
std::optional<std::uint64_t> first_difference(const vmm::GuestMemory& a, const vmm::GuestMemory& b);

}  // namespace tests
