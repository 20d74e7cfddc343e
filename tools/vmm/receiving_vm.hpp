// ReceivingVm: the machine of an incoming session. To what the engine's adapter examines it adds what only
// this program knows: names of guests, and who has the serial port's back end.
#pragma once

#include <functional>

#include "migration/machine_port.hpp"
#include "tools/vmm/receive_options.hpp"

namespace tools {

class ReceivingVm final : public migration::DestinationVm {
  public:
    // What the process makes of a machine's configuration; called once, when the guest was accepted.
    using Factory = std::function<vmm::Result<std::unique_ptr<vmm::Machine>>(
        const vmm::MachineConfig& config, std::vector<devices::virtio::Config> virtio)>;

    struct Session {
        migration::Purpose purpose{};
        bool serial_taken = false;
    };

    // `host`: what it offers, --cpuid-mask applied. Host and options must outlive it.
    ReceivingVm(const vmm::HostOffer& host, const ReceiveOptions& options, Session session, Factory factory);

    migration::PreflightReply examine(const migration::Manifest& manifest) override;
    vmm::Result<Costs> prepare(const migration::Manifest& manifest,
                               std::span<const std::byte> boot_image) override;
    vmm::GuestMemory& memory() override { return machine_.memory(); }
    vmm::Result<void> restore(std::span<const std::byte> snapshot,
                              std::optional<vmm::Duration> elapsed) override {
        return machine_.restore(snapshot, elapsed);
    }
    vmm::Result<void> take_exclusives() override { return machine_.take_exclusives(); }
    void give_exclusives() override { machine_.give_exclusives(); }
    vmm::Result<Entry> start() override { return machine_.start(); }

    migration::Guest& guest() { return machine_.guest(); }

  private:
    vmm::Result<migration::Offer> offer(const migration::Manifest& manifest);
    void examine_name(const std::string& name, migration::PreflightReply& reply) const;

    const vmm::HostOffer& host_;
    const ReceiveOptions& options_;
    const Session session_;
    std::vector<migration::Reason> device_reasons_;  // of the manifest being examined
    migration::MachineDestination machine_;
};

}  // namespace tools
