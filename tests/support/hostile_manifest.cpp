// hostile_manifest ADDRESS PATH NAME: a peer whose manifests name paths wherever a text fits, and one whose
// manifest is wrong in every way at once, for a guest NAME. Prints what each was answered, a line each: what
// it shows, then the codes of the reasons, sorted. Fails when anything but a reply to a manifest comes back.
#include <fmt/format.h>

#include <cstdio>
#include <set>

#include "devices/board.hpp"
#include "migration/greeting.hpp"
#include "migration/transport_socket.hpp"
#include "vmm/guest/address.hpp"
#include "vmm/kvm/compatibility.hpp"
#include "vmm/machine/config.hpp"

namespace {

using namespace migration;

// A guest of this host: what it needs is there, so that a refusal is for what was changed alone.
vmm::Result<Manifest> plain_manifest(const vmm::HostOffer& host) {
    Manifest manifest;
    manifest.name = "plain";
    manifest.ram_bytes = 1 << 20;
    manifest.cpu.vcpus = 1;
    manifest.cpu.cpuid = vmm::make_guest_cpuid(host.cpuid, 1, host.capabilities.tsc_deadline);
    manifest.cpu.tsc_khz = host.tsc_khz;
    for (const vmm::DeviceIdentity& device : devices::fixed_devices()) {
        manifest.devices.push_back(
            {std::string{device.state.name}, device.instance, device.state.current, {}, 0, false});
    }
    return manifest;
}

// Everything that one manifest can have wrong: the rest excludes one of these.
Manifest wrong_in_every_way(Manifest manifest, const char* name) {
    manifest.name = name;
    manifest.ram_bytes = std::uint64_t{1} << 50;
    manifest.used_pages = manifest.ram_bytes / vmm::kPageSize;
    manifest.cpu.vcpus = vmm::MachineConfig::kMaxVcpus + 1;
    manifest.cpu.tsc_khz *= 2;
    manifest.cpu.msrs.push_back(0xdead'beef);
    for (vmm::CpuidEntry& entry : manifest.cpu.cpuid.entries) {
        if (entry.leaf == 7 && entry.subleaf == 0) {
            entry.ebx = ~0U;
        }
    }
    manifest.devices[0].version = 0xffff;
    manifest.devices[1].state_name = "no-such-device";
    return manifest;
}

vmm::Result<PreflightReply> show(const Address& address, Purpose purpose, const Manifest& manifest) {
    SocketConnector connector{address};
    MessageStream control{TRY(connector.connect({}))};
    TRY(greet(control, make_hello(purpose, random_bytes<16>(), random_bytes<32>()), {}));
    TRY(control.send(manifest));
    return control.expect<PreflightReply>();
}

struct Shown {
    const char* what;
    Purpose purpose;
    Manifest manifest;
};

vmm::Result<void> run(const char* to, const char* path, const char* name) {
    const Address address = TRY(Address::parse(to));
    const vmm::Kvm kvm = TRY(vmm::Kvm::open());
    const vmm::HostOffer host = TRY(vmm::probe_host(kvm));
    fmt::print("host{}\n", host.capabilities.tsc_scaling ? " tsc_scaling" : "");
    const Manifest plain = TRY(plain_manifest(host));
    std::vector<Shown> all{{"plain", Purpose::preflight, plain}};
    // For a guest that is to come, not only for one that asks whether it might.
    for (const char* what : {"path_as_name", "name_of_parent", "path_as_device", "path_as_another_device"}) {
        all.push_back({what, Purpose::control, plain});
    }
    all[1].manifest.name = path;
    all[2].manifest.name = "../bait";
    all[3].manifest.devices[0].state_name = "file:bait";
    all[4].manifest.devices.push_back({"unix:./bait", 0, 1, "file:bait", 0, false});
    all.push_back({"everything", Purpose::control, wrong_in_every_way(plain, name)});
    for (const Shown& shown : all) {
        const PreflightReply reply = TRY(show(address, shown.purpose, shown.manifest));
        std::set<std::string> codes;
        for (const Reason& reason : reply.reasons) {
            codes.insert(reason.code);
            std::fprintf(stderr, "%s: %s: %s: %s\n", shown.what, reason.code.c_str(), reason.where.c_str(),
                         reason.what.c_str());
        }
        fmt::print("{} {}\n", shown.what, fmt::join(codes, " "));
    }
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: hostile_manifest tcp:ADDR:PORT PATH NAME\n");
        return 2;
    }
    if (const auto done = run(argv[1], argv[2], argv[3]); !done) {
        std::fprintf(stderr, "%s\n", done.error().text().c_str());
        return 1;
    }
    return 0;
}
