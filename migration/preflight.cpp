#include "migration/preflight.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "vmm/guest/address.hpp"
#include "vmm/machine/config.hpp"

namespace migration {

namespace {

constexpr std::uint64_t kBootImageSlack = std::uint64_t{1} << 20;  // names and numbers of its segments

class Reasons {
  public:
    void add(std::string code, std::string what, std::string where, std::string remedy) {
        // Room is left for what the caller has to add.
        if (list_.size() < PreflightReply::kMaxReasons / 2) {
            what.resize(std::min(what.size(), kMaxTextBytes));
            list_.push_back({std::move(code), std::move(what), std::move(where), std::move(remedy)});
        }
    }
    std::vector<Reason> take() { return std::move(list_); }

  private:
    std::vector<Reason> list_;
};

std::string place_of(std::string_view name, std::uint32_t instance, std::string_view id) {
    return id.empty() ? fmt::format("device {}[{}]", name, instance)
                      : fmt::format("device {} \"{}\"", name, id);
}

void examine_devices(const Manifest& manifest, const Offer& offer, Reasons& reasons) {
    const auto same = [](const DeviceEntry& entry, const vmm::DeviceIdentity& device) {
        return entry.state_name == device.state.name && entry.instance == device.instance &&
               entry.id == device.id;
    };
    std::set<std::pair<std::string_view, std::uint32_t>> places;
    std::set<std::string_view> ids;
    for (const DeviceEntry& entry : manifest.devices) {
        if (!places.emplace(entry.state_name, entry.instance).second ||
            (!entry.id.empty() && !ids.insert(entry.id).second)) {
            reasons.add("bad_manifest", "a device is there twice",
                        place_of(entry.state_name, entry.instance, entry.id),
                        "use a vmm that speaks this protocol");
            return;
        }
    }
    for (const DeviceEntry& entry : manifest.devices) {
        const std::string where = place_of(entry.state_name, entry.instance, entry.id);
        const auto ours =
            std::find_if(offer.devices.begin(), offer.devices.end(),
                         [&](const vmm::DeviceIdentity& device) { return same(entry, device); });
        if (ours == offer.devices.end()) {
            reasons.add("unknown_device", "the destination has no such device", where,
                        "give `vmm receive` the options that make it, or use a newer vmm there");
        } else if (entry.bytes != ours->bytes || entry.read_only != ours->read_only) {
            reasons.add("other_disk",
                        fmt::format("the guest's disk has {} bytes{}, the destination's {}{}", entry.bytes,
                                    entry.read_only ? ", read-only" : "", ours->bytes,
                                    ours->read_only ? ", read-only" : ""),
                        where, "give `vmm receive` the same disk, reachable from both hosts");
        } else if (entry.version > ours->state.current || entry.version < ours->state.oldest) {
            reasons.add("device_version",
                        fmt::format("state version {}, the destination reads {} to {}", entry.version,
                                    ours->state.oldest, ours->state.current),
                        where, "use the same version of vmm on both hosts");
        }
    }
    for (const vmm::DeviceIdentity& device : offer.devices) {
        if (std::none_of(manifest.devices.begin(), manifest.devices.end(),
                         [&](const DeviceEntry& entry) { return same(entry, device); })) {
            reasons.add("surplus_device", "the guest has no such device",
                        place_of(device.state.name, device.instance, device.id),
                        "leave out the option of `vmm receive` that makes it");
        }
    }
}

}  // namespace

PreflightReply examine(const Manifest& manifest, const Offer& offer) {
    Reasons reasons;
    if (offer.max_memory_bytes && manifest.ram_bytes > *offer.max_memory_bytes) {
        reasons.add("memory_limit",
                    fmt::format("the guest has {} MiB of memory, the destination takes at most {} MiB",
                                manifest.ram_bytes >> 20, *offer.max_memory_bytes >> 20),
                    "memory", "raise --max-memory of `vmm receive`");
    }
    if (!offer.max_memory_bytes && manifest.ram_bytes > offer.total_memory_bytes) {
        reasons.add("memory_limit",
                    fmt::format("the guest has {} MiB of memory, the destination itself has {} MiB",
                                manifest.ram_bytes >> 20, offer.total_memory_bytes >> 20),
                    "memory", "allow it with --max-memory of `vmm receive`");
    }
    // Sizes are the peer's word: bounded here, before anything is mapped.
    if (manifest.ram_bytes == 0 || manifest.ram_bytes % vmm::kPageSize != 0 ||
        manifest.used_pages > manifest.ram_bytes / vmm::kPageSize) {
        reasons.add("bad_manifest",
                    fmt::format("{} bytes of memory, {} pages used", manifest.ram_bytes, manifest.used_pages),
                    "memory", "use a vmm that speaks this protocol");
    } else if (manifest.used_pages * vmm::kPageSize > offer.available_memory_bytes) {
        reasons.add(
            "memory_available",
            fmt::format("the guest uses {} MiB, the destination has {} MiB left",
                        manifest.used_pages * vmm::kPageSize >> 20, offer.available_memory_bytes >> 20),
            "memory", "free memory on the destination");
    }
    if (offer.max_cpus && manifest.cpu.vcpus > *offer.max_cpus) {
        reasons.add("cpu_limit",
                    fmt::format("the guest has {} vCPUs, the destination takes at most {}",
                                manifest.cpu.vcpus, *offer.max_cpus),
                    "vCPUs", "raise --max-cpus of `vmm receive`");
    }
    if (manifest.cpu.vcpus == 0 || manifest.cpu.vcpus > vmm::MachineConfig::kMaxVcpus) {
        reasons.add("bad_manifest", fmt::format("{} vCPUs", manifest.cpu.vcpus), "vCPUs",
                    "use a vmm that speaks this protocol");
    }
    for (std::string& missing : vmm::missing_on(manifest.cpu, offer.host)) {
        reasons.add("cpu_feature", std::move(missing), "vCPUs",
                    "move to a host that offers it, or start the guest on a host like the destination");
    }
    // It is read into memory before the guest has any: no more than a guest of this size can be booted from.
    if (manifest.boot_image_bytes > manifest.ram_bytes + kBootImageSlack) {
        reasons.add("boot_image",
                    fmt::format("the boot image has {} bytes, more than the guest's memory",
                                manifest.boot_image_bytes),
                    "memory", "start the guest with more memory");
    }
    examine_devices(manifest, offer, reasons);
    return {reasons.take(), {}, 0, 0};
}

std::optional<Reason> clock_warning(vmm::Duration difference) {
    if (difference < kClockTolerance && difference > -kClockTolerance) {
        return std::nullopt;
    }
    return Reason{
        "clock_difference",
        fmt::format("the clock of the destination is {:.0f} ms {} ours", std::abs(vmm::to_ms(difference)),
                    difference > vmm::Duration::zero() ? "ahead of" : "behind"),
        "clock", "synchronise both hosts (NTP); the length of the pause is estimated from round-trip times"};
}

}  // namespace migration
