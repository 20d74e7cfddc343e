#include "tools/vmm/device_plan.hpp"

#include <algorithm>

#include "devices/board.hpp"
#include "devices/virtio/rng.hpp"
#include "tools/vmm/path_checks.hpp"

namespace tools {

using devices::virtio::Config;
using migration::DeviceEntry;

namespace {

constexpr std::size_t kMaxReasons = devices::kVirtioWindows;  // one for each device that a guest can have

bool is(const DeviceEntry& entry, const Config& config) {
    return !entry.id.empty() && entry.id == config.id &&
           entry.state_name == devices::virtio::state_id_of(config).name;
}

bool has(const migration::Manifest& manifest, const Config& config) {
    return std::any_of(manifest.devices.begin(), manifest.devices.end(),
                       [&](const DeviceEntry& entry) { return is(entry, config); });
}

vmm::Result<vmm::DeviceIdentity> examine_here(const Config& config) {
    if (const auto* console = std::get_if<devices::virtio::ConsoleConfig>(&config.what)) {
        TRY(check_serial(console->backend, true));
    }
    return devices::virtio::examine(config);
}

}  // namespace

std::vector<Config> plan_devices(const migration::Manifest& manifest, std::span<const Config> ours) {
    std::vector<Config> plan;
    for (const DeviceEntry& entry : manifest.devices) {
        if (entry.instance >= devices::kVirtioWindows) {
            continue;
        }
        const auto found =
            std::find_if(ours.begin(), ours.end(), [&](const Config& c) { return is(entry, c); });
        if (found != ours.end()) {
            plan.push_back(*found);
            plan.back().window = entry.instance;
        } else if (entry.state_name == devices::virtio::RngState::id.name && !entry.id.empty()) {
            // Every host has one.
            plan.push_back({entry.id, entry.instance, devices::virtio::RngConfig{}});
        }
    }
    return plan;
}

std::vector<vmm::DeviceIdentity> offer_devices(const migration::Manifest& manifest,
                                               std::span<const Config> ours,
                                               std::vector<migration::Reason>& reasons) {
    std::vector<vmm::DeviceIdentity> offer = devices::fixed_devices();
    for (const Config& config : plan_devices(manifest, ours)) {
        auto identity = examine_here(config);
        if (!identity && reasons.size() >= kMaxReasons) {
            continue;
        }
        if (!identity) {
            const auto name = devices::virtio::state_id_of(config);
            reasons.push_back(reason_from("device_unusable", identity.error(),
                                          fmt::format("device {} \"{}\"", name.name, config.id)));
            // Said once: as the guest has it, so that nothing else is found wrong with it.
            const auto entry = std::find_if(manifest.devices.begin(), manifest.devices.end(),
                                            [&](const DeviceEntry& e) { return is(e, config); });
            identity = vmm::DeviceIdentity{name, config.window, config.id, entry->bytes, entry->read_only};
        }
        offer.push_back(std::move(*identity));
    }
    for (const Config& config : ours) {
        if (!has(manifest, config)) {
            offer.push_back({devices::virtio::state_id_of(config), config.window, config.id});
        }
    }
    return offer;
}

}  // namespace tools
