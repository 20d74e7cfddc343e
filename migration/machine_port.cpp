#include "migration/machine_port.hpp"

#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"

namespace migration {

using vmm::Result;

Result<Manifest> MachineSource::manifest() {
    const vmm::MachineConfig& config = machine_.config();
    Manifest manifest;
    manifest.name = config.name;
    manifest.uuid = config.uuid;
    manifest.epoch = epoch_;
    manifest.ram_bytes = config.ram_bytes;
    manifest.cpu = TRY(lifecycle_.cpu_needs());
    for (const auto& device : machine_.devices()) {
        const vmm::DeviceIdentity identity = device->identity();
        manifest.devices.push_back({std::string{identity.state.name}, identity.instance,
                                    identity.state.current, identity.id, identity.bytes, identity.read_only});
    }
    return manifest;
}

vmm::GatheredBytes MachineSource::boot_image() {
    return vmm::encode_in_place(machine_.boot_image());
}

PreflightReply MachineDestination::examine(const Manifest& manifest) {
    const auto offer = offer_(manifest);
    if (!offer) {
        return {{{"host", offer.error().text(), "destination", "see the log of the destination"}}, {}, 0, 0};
    }
    return migration::examine(manifest, *offer);
}

Result<DestinationVm::Costs> MachineDestination::prepare(const Manifest& manifest,
                                                         std::span<const std::byte> boot_image) {
    vmm::BootImage image =
        TRY(vmm::decode<vmm::BootImage>(boot_image, vmm::BootImage::id.current).context("boot image"));
    vmm::MachineConfig config;
    config.name = manifest.name;
    config.uuid = manifest.uuid;
    config.ram_bytes = manifest.ram_bytes;
    config.vcpus = manifest.cpu.vcpus;
    config.cpuid = manifest.cpu.cpuid;
    config.tsc_khz = manifest.cpu.tsc_khz;
    guest_.machine = TRY(factory_(config, manifest));
    guest_.machine->set_boot_image(std::move(image));
    guest_.lifecycle = TRY(vmm::Lifecycle::create(*guest_.machine));
    guest_.epoch = manifest.epoch + 1;
    const auto rehearsal = TRY(guest_.lifecycle->rehearse());
    return Costs{rehearsal.save, rehearsal.restore};
}

Result<void> MachineDestination::restore(std::span<const std::byte> snapshot,
                                         std::optional<vmm::Duration> elapsed) {
    return guest_.lifecycle->restore(snapshot, elapsed);
}

Result<DestinationVm::Entry> MachineDestination::start() {
    const auto entered = guest_.lifecycle->start();
    if (!entered && !guest_.lifecycle->entered()) {
        return vmm::Failure{entered.error()};
    }
    // A failure after the first entry is a crash of a guest that is ours.
    return entered && !*entered ? Entry::placed : Entry::running;
}

}  // namespace migration
