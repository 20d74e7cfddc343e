// vmm receive: takes in guests that migrate to this host.
#include <linux/capability.h>

#include <array>

#include "tools/vmm/commands.hpp"
#include "tools/vmm/faults.hpp"
#include "tools/vmm/guest_options.hpp"
#include "tools/vmm/listener.hpp"
#include "tools/vmm/log.hpp"
#include "tools/vmm/parse.hpp"
#include "tools/vmm/path_checks.hpp"
#include "tools/vmm/reception.hpp"

namespace tools {

using vmm::Result;

namespace {

constexpr std::size_t kMaxIncoming = 64;

// Once, not in each session: to try KVM takes a VM, and to drop that again takes as long as a whole migration
// of a small guest (20 ms).
Result<vmm::HostOffer> offered_host(const vmm::Kvm& kvm, const ReceiveOptions& options) {
    vmm::HostOffer host = TRY(vmm::probe_host(kvm));
    for (const vmm::CpuidMask& mask : options.cpuid_masks) {
        vmm::apply(mask, host.cpuid);
    }
    return host;
}

Result<int> receive(ReceiveOptions options, migration::EventSink* extra) {
    // The port may be one below 1024.
    constexpr std::array kCapabilities{CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE};
    const std::unique_ptr<Sandbox> sandbox = TRY(Sandbox::begin(options.guest.sandbox, kCapabilities));
    vmm::Kvm kvm = TRY(vmm::Kvm::open());
    const vmm::HostOffer offer = TRY(offered_host(kvm, options));
    if (!options.link.tls_dir.empty()) {
        options.tls = TRY(migration::TlsContext::load(options.link.tls_dir));
    }
    TRY(check_back_ends(options.guest));
    std::vector<devices::virtio::Config> placed = options.guest.devices;
    TRY(place_devices(placed));  // their windows are the guest's; no two may have one id
    TRY(control_place(options.guest, options.name));
    EndSignals signals = TRY(EndSignals::block());
    std::unique_ptr<Listener> listener = TRY(Listener::create(options, signals));
    // Before the first byte of anybody; the processes of sessions inherit it.
    TRY(sandbox->confine(vmm::ThreadRole::setup));
    log_line("listening on {}", listener->address().text());
    std::variant<int, Accepted> next = listener->run();
    listener.reset();
    if (const int* status = std::get_if<int>(&next)) {
        return *status;
    }
    return Reception::serve(options, {std::move(kvm), offer, *sandbox}, std::move(std::get<Accepted>(next)),
                            std::move(signals), extra);
}

}  // namespace

void add_receive(Commands& commands) {
    CLI::App* app =
        commands.app.add_subcommand("receive", "Listen for guests that `vmm migrate` moves to this host");
    app->footer(
        "Each guest gets a process of its own, which owns it as `vmm run` would; it lives on when this one "
        "ends\n"
        "(SIGTERM, Ctrl-C), unless --once was given: then a signal stops the guest, and its exit status "
        "becomes ours.\n"
        "The address is printed on standard error at once; with port 0 it names the port that was taken.");
    auto options = std::make_shared<ReceiveOptions>();
    add_value(app, "--listen", options->listen, migration::Address::parse, "tcp:ADDR:PORT to listen on")
        ->required();
    add_value(
        app, "--max-incoming", options->max_incoming,
        [](const std::string& text) { return parse_count(text, 1, kMaxIncoming); },
        "Guests that may be arriving at one time (1)");
    add_value(
        app, "--queue", options->queue,
        [](const std::string& text) { return parse_count(text, 0, migration::HelloReply::kMaxPlace); },
        "Guests that may wait for their turn while so many arrive; more are refused (0)");
    add_value(app, "--max-memory", options->max_memory, parse_size, "Refuse guests with more memory");
    add_value(
        app, "--max-cpus", options->max_cpus,
        [](const std::string& text) { return parse_count(text, 1, vmm::MachineConfig::kMaxVcpus); },
        "Refuse guests with more vCPUs");
    app->add_option_function<std::vector<std::string>>(
           "--cpuid-mask",
           [options](const std::vector<std::string>& masks) {
               for (const std::string& mask : masks) {
                   options->cpuid_masks.push_back(*vmm::parse_cpuid_mask(mask));
               }
           },
           "LEAF:REG=BITS, as in 0x7:ebx=0x10000: refuse guests that use these features; may be repeated")
        ->check([](const std::string& text) {
            const auto mask = vmm::parse_cpuid_mask(text);
            return mask ? std::string{} : mask.error().text();
        })
        ->allow_extra_args(false);
    app->add_flag("--once", options->once,
                  "End with the one guest that was received, and with its exit status");
    add_link_options(
        app, options->link,
        "Who may migrate to here: a name, an address or sha256:HEX of a certificate (any of our CA)");
    add_value(app, "--fault", options->fault, fault_of(migration::Role::destination), kFaultHelp);
    add_guest_options(app, options->name, options->guest, DeviceSide::receive);
    app->callback([&commands, options] {
        commands.chosen = [options, extra = commands.extra] {
            const Result<int> status = receive(*options, extra);
            if (!status) {
                log_line("receive: {}", status.error().text());
                return kFailureStatus;
            }
            return *status;
        };
    });
}

}  // namespace tools
