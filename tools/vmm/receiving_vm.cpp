#include "tools/vmm/receiving_vm.hpp"

#include <fstream>

#include "tools/vmm/device_plan.hpp"
#include "tools/vmm/parse.hpp"
#include "tools/vmm/path_checks.hpp"
#include "tools/vmm/places.hpp"
#include "tools/vmm/unix_socket.hpp"

namespace tools {

using vmm::Code;
using vmm::Result;

namespace {

// A line of /proc/meminfo, in bytes.
Result<std::uint64_t> meminfo(std::string_view wanted) {
    std::ifstream info{"/proc/meminfo"};
    std::string name;
    std::uint64_t kibibytes = 0;
    std::string unit;
    while (info >> name >> kibibytes) {
        if (name == wanted) {
            return kibibytes << 10;
        }
        std::getline(info, unit);
    }
    return vmm::fail(Code::unsupported, "/proc/meminfo has no line {}", wanted);
}

// Tries what Prepare will do: only the kernel knows what pool, reservations and overcommitment come to.
Result<void> reserve_huge_pages(std::uint64_t ram_bytes) {
    std::vector<vmm::Mapping> held;
    for (const vmm::RegionConfig& region : vmm::pc_memory_map(ram_bytes)) {
        held.push_back(TRY(vmm::Mapping::anonymous(region.size, vmm::Backing::hugetlb)));
    }
    return {};
}

}  // namespace

ReceivingVm::ReceivingVm(const vmm::HostOffer& host, const ReceiveOptions& options, Session session,
                         Factory factory)
    : host_(host),
      options_(options),
      session_(session),
      machine_([this](const migration::Manifest& manifest) { return offer(manifest); },
               [this, make = std::move(factory)](const vmm::MachineConfig& config,
                                                 const migration::Manifest& manifest) {
                   return make(config, plan_devices(manifest, options_.guest.devices));
               }) {
}

Result<migration::Offer> ReceivingVm::offer(const migration::Manifest& manifest) {
    migration::Offer offer;
    offer.host = host_;
    offer.devices = offer_devices(manifest, options_.guest.devices, device_reasons_);
    offer.max_memory_bytes = options_.max_memory;
    offer.max_cpus = options_.max_cpus;
    offer.available_memory_bytes = TRY(meminfo("MemAvailable:"));
    offer.total_memory_bytes = TRY(meminfo("MemTotal:"));
    return offer;
}

migration::PreflightReply ReceivingVm::examine(const migration::Manifest& manifest) {
    device_reasons_.clear();
    migration::PreflightReply reply = machine_.examine(manifest);
    reply.reasons.insert(reply.reasons.end(), device_reasons_.begin(), device_reasons_.end());
    examine_name(options_.name.empty() ? manifest.name : options_.name, reply);
    if (session_.serial_taken) {
        reply.reasons.push_back(
            {"serial_in_use", "another guest of this listener has the back ends of serial port and console",
             "device serial", "start another `vmm receive` with a --serial of its own"});
    } else if (const auto serial = check_serial(options_.guest.serial, true); !serial) {
        reply.reasons.push_back(reason_from("serial_unusable", serial.error(), "device serial"));
    }
    const auto directory = state_directory(options_.guest.state_dir);
    const auto records = directory ? check_records(*directory) : vmm::Failure{directory.error()};
    if (!records) {
        reply.reasons.push_back(reason_from("records_unusable", records.error(), "handover record"));
    }
    if (options_.guest.backing == vmm::Backing::hugetlb) {
        if (const auto room = reserve_huge_pages(manifest.ram_bytes); !room) {
            reply.reasons.push_back({"huge_pages", room.error().text(), "memory",
                                     "raise vm.nr_hugepages there, or receive with another --backing"});
        }
    }
    return reply;
}

void ReceivingVm::examine_name(const std::string& name, migration::PreflightReply& reply) const {
    if (!is_guest_name(name)) {
        reply.reasons.push_back({"bad_name", "the guest's name is not one that this host can use", "name",
                                 "give `vmm receive` a --name"});
        return;
    }
    const auto in_use = [&]() -> Result<bool> {
        return is_listening(TRY(control_place(options_.guest, name)));
    }();
    if (!in_use) {
        reply.reasons.push_back(reason_from("control_unusable", in_use.error(), "control socket"));
    } else if (*in_use) {
        reply.reasons.push_back({"name_in_use", fmt::format("a guest named \"{}\" runs there already", name),
                                 "name", "give `vmm receive` another --name"});
    }
}

Result<migration::DestinationVm::Costs> ReceivingVm::prepare(const migration::Manifest& manifest,
                                                             std::span<const std::byte> boot_image) {
    if (session_.purpose != migration::Purpose::control) {
        return vmm::fail(Code::protocol, "a session for preflight cannot bring a guest");
    }
    return machine_.prepare(manifest, boot_image);
}

}  // namespace tools
