// What the engine needs of a machine. The adapter to vmm::Machine is machine_port; tests script their own.
#pragma once

#include <optional>

#include "migration/message.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/guest/dirty.hpp"
#include "vmm/guest/memory.hpp"
#include "vmm/state/gather.hpp"

namespace migration {

// The machine that leaves. Called by the source's thread.
class SourceVm {
  public:
    virtual ~SourceVm() = default;

    // Everything but used_pages, boot_image_bytes and realtime_ns. The epoch is the present owner's.
    virtual vmm::Result<Manifest> manifest() = 0;
    // How long vCPUs take to leave the guest and to enter it again, as the manifest found.
    virtual vmm::Duration stop_time() const = 0;
    // An encoded vmm::BootImage, for as long as the machine lives.
    virtual vmm::GatheredBytes boot_image() = 0;
    // The guest powered off, crashed or was stopped. Any thread.
    virtual bool ended() const = 0;
    virtual vmm::GuestMemory& memory() = 0;
    virtual vmm::DirtyTracker& tracker() = 0;

    // Stops vCPUs and devices, and keeps users from changing the run state until resume() or release(). The
    // guest may have ended: Code::guest_ended; or its devices do not come to rest within `limit`.
    virtual vmm::Result<vmm::Drain> pause(vmm::Duration limit) = 0;
    // While paused; may write guest memory, so the trackers are collected again afterwards.
    virtual vmm::Result<vmm::Bytes> save() = 0;
    // Begins to bring what the guest has written to disks so far to the storage; it may run.
    virtual vmm::Result<void> begin_flush() = 0;
    // Waits for that; Code::timeout: not yet, ask again. May take long.
    virtual vmm::Result<void> wait_flushed(vmm::Duration limit) = 0;
    // What only one host at a time may use (disks) is free for the destination: flushed within `limit`, and
    // its locks given up. While paused.
    virtual vmm::Result<void> give_exclusives(vmm::Duration limit) = 0;
    // Takes back as much of it as can be had, so that a destination that was told to start later cannot. The
    // guest stays paused.
    virtual void take_exclusives() = 0;
    // Back to the run state of before pause(). An error: it stays paused, because another has its disks; or
    // it crashed.
    virtual vmm::Result<void> resume() = 0;
    // The guest lives elsewhere now; it never runs here again.
    virtual void release() = 0;
};

// The machine that arrives. Called by the session's control thread; memory() by its stream threads too.
class DestinationVm {
  public:
    virtual ~DestinationVm() = default;

    // All reasons against and all warnings, before anything is created. Its times are filled in by the
    // engine.
    virtual PreflightReply examine(const Manifest& manifest) = 0;

    struct Costs {
        vmm::Duration save{};
        vmm::Duration restore{};
    };
    // Everything slow: VM, memory, vCPUs, devices, and one save and restore of the fresh machine for their
    // costs.
    virtual vmm::Result<Costs> prepare(const Manifest& manifest, std::span<const std::byte> boot_image) = 0;
    // After prepare().
    virtual vmm::GuestMemory& memory() = 0;
    // `elapsed`: how long the guest has stood still, where the clocks of the two hosts cannot tell.
    virtual vmm::Result<void> restore(std::span<const std::byte> snapshot,
                                      std::optional<vmm::Duration> elapsed) = 0;

    // What only one host at a time may use, of which the source has let go. An error names what cannot be
    // had. It is given back when the guest cannot be started.
    virtual vmm::Result<void> take_exclusives() = 0;
    virtual void give_exclusives() = 0;

    // A guest that was paused by its user is placed, not started.
    enum class Entry : std::uint8_t { running, placed };
    // An error means that no thread ever called KVM_RUN, and none will.
    virtual vmm::Result<Entry> start() = 0;
};

}  // namespace migration
