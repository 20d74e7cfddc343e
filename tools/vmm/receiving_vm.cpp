#include "tools/vmm/receiving_vm.hpp"

#include <fstream>

#include "tools/vmm/board_setup.hpp"
#include "tools/vmm/parse.hpp"
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

}  // namespace

ReceivingVm::ReceivingVm(const vmm::Kvm& kvm, const ReceiveOptions& options, Session session, Factory factory)
    : kvm_(kvm),
      options_(options),
      session_(session),
      machine_([this] { return offer(); }, std::move(factory)) {
}

Result<migration::Offer> ReceivingVm::offer() const {
    migration::Offer offer;
    offer.host = TRY(vmm::probe_host(kvm_));
    for (const vmm::CpuidMask& mask : options_.cpuid_masks) {
        vmm::apply(mask, offer.host.cpuid);
    }
    offer.devices = TRY(board_identities());
    offer.max_memory_bytes = options_.max_memory;
    offer.max_cpus = options_.max_cpus;
    offer.available_memory_bytes = TRY(meminfo("MemAvailable:"));
    offer.total_memory_bytes = TRY(meminfo("MemTotal:"));
    return offer;
}

migration::PreflightReply ReceivingVm::examine(const migration::Manifest& manifest) {
    migration::PreflightReply reply = machine_.examine(manifest);
    const std::string& name = options_.name.empty() ? manifest.name : options_.name;
    if (!is_guest_name(name)) {
        reply.reasons.push_back({"bad_name", "the guest's name is not one that this host can use", "name",
                                 "give `vmm receive` a --name"});
    } else if (is_listening(options_.guest.control.empty() ? control_path(name) : options_.guest.control)) {
        reply.reasons.push_back({"name_in_use", fmt::format("a guest named \"{}\" runs there already", name),
                                 "name", "give `vmm receive` another --name"});
    }
    if (session_.serial_taken) {
        reply.reasons.push_back({"serial_in_use",
                                 "another guest of this listener has the back end of the serial port",
                                 "device serial", "start another `vmm receive` with a --serial of its own"});
    }
    return reply;
}

Result<migration::DestinationVm::Costs> ReceivingVm::prepare(const migration::Manifest& manifest,
                                                             std::span<const std::byte> boot_image) {
    if (session_.purpose != migration::Purpose::control) {
        return vmm::fail(Code::protocol, "a session for preflight cannot bring a guest");
    }
    return machine_.prepare(manifest, boot_image);
}

}  // namespace tools
