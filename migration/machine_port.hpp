// The one adapter between the engine and vmm::Machine.
#pragma once

#include <functional>
#include <memory>

#include "migration/ports.hpp"
#include "migration/preflight.hpp"
#include "vmm/machine/lifecycle.hpp"
#include "vmm/machine/machine.hpp"

namespace migration {

class MachineSource final : public SourceVm {
  public:
    // `epoch`: the ownership epoch of this process: 0 where the guest was started, what the Commit said
    // otherwise.
    MachineSource(vmm::Machine& machine, vmm::Lifecycle& lifecycle, std::uint64_t epoch)
        : machine_(machine), lifecycle_(lifecycle), epoch_(epoch) {}

    vmm::Result<Manifest> manifest() override;
    vmm::Duration stop_time() const override { return lifecycle_.stop_time(); }
    vmm::GatheredBytes boot_image() override;
    bool ended() const override { return lifecycle_.end().has_value(); }
    vmm::GuestMemory& memory() override { return machine_.memory(); }
    vmm::DirtyTracker& tracker() override { return machine_.tracker(); }
    vmm::Result<vmm::Drain> pause(vmm::Duration limit) override { return lifecycle_.begin_handover(limit); }
    vmm::Result<vmm::Bytes> save() override { return lifecycle_.save(); }
    vmm::Result<void> begin_flush() override { return lifecycle_.begin_flush(); }
    vmm::Result<void> wait_flushed(vmm::Duration limit) override { return lifecycle_.wait_flushed(limit); }
    vmm::Result<void> give_exclusives(vmm::Duration limit) override {
        return lifecycle_.give_exclusives(limit);
    }
    void take_exclusives() override { (void)lifecycle_.take_exclusives(); }
    vmm::Result<void> resume() override { return lifecycle_.cancel_handover(); }
    void release() override { lifecycle_.finish_handover(); }

  private:
    vmm::Machine& machine_;
    vmm::Lifecycle& lifecycle_;
    std::uint64_t epoch_;
};

// A guest and what runs it. The lifecycle goes first.
struct Guest {
    std::unique_ptr<vmm::Machine> machine;
    std::unique_ptr<vmm::Lifecycle> lifecycle;
    std::uint64_t epoch = 0;
};

class MachineDestination final : public DestinationVm {
  public:
    // Makes a machine with its board; the devices' host side is the destination's own.
    using Factory =
        std::function<vmm::Result<std::unique_ptr<vmm::Machine>>(const vmm::MachineConfig&, const Manifest&)>;

    // `offer` is asked when a manifest has come, so that it is of that moment and has what that guest needs.
    using Offers = std::function<vmm::Result<Offer>(const Manifest&)>;
    MachineDestination(Offers offer, Factory factory)
        : offer_(std::move(offer)), factory_(std::move(factory)) {}

    PreflightReply examine(const Manifest& manifest) override;
    vmm::Result<Costs> prepare(const Manifest& manifest, std::span<const std::byte> boot_image) override;
    vmm::GuestMemory& memory() override { return guest_.machine->memory(); }
    vmm::Result<void> restore(std::span<const std::byte> snapshot,
                              std::optional<vmm::Duration> elapsed) override;
    vmm::Result<void> take_exclusives() override { return guest_.lifecycle->take_exclusives(); }
    void give_exclusives() override { (void)guest_.lifecycle->give_exclusives(std::chrono::seconds{1}); }
    vmm::Result<Entry> start() override;

    // The guest, once the session has given it to this process.
    Guest& guest() { return guest_; }

  private:
    Offers offer_;
    Factory factory_;
    Guest guest_;
};

}  // namespace migration
