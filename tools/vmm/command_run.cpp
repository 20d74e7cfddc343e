// vmm run: starts a guest and owns it until it ends or has moved away.
#include <linux/capability.h>

#include <array>
#include <filesystem>
#include <memory>

#include "migration/ids.hpp"
#include "tools/vmm/commands.hpp"
#include "tools/vmm/guest_options.hpp"
#include "tools/vmm/log.hpp"
#include "tools/vmm/parse.hpp"
#include "tools/vmm/path_checks.hpp"
#include "tools/vmm/places.hpp"
#include "vmm/base/advice.hpp"
#include "vmm/machine/loader.hpp"

namespace tools {

using vmm::Result;

namespace {

struct RunOptions {
    std::string image;
    std::string append;
    std::string initrd;
    std::string name;
    std::uint64_t memory = std::uint64_t{512} << 20;
    std::uint64_t vcpus = 1;
    GuestOptions guest;
};

migration::Uuid make_uuid() {
    auto uuid = migration::random_bytes<16>();
    uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | 0x40);  // RFC 4122: version 4, random
    uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | 0x80);
    return uuid;
}

// A name that a person gave must be free; one of ours becomes free by a number behind it.
Result<std::string> open_control(GuestProcess& process, const RunOptions& options) {
    constexpr int kMaxNumber = 1000;
    if (!options.name.empty()) {
        TRY(process.open_control(options.name, ""));
        return options.name;
    }
    const std::string stem = guest_name_from(std::filesystem::path{options.image}.stem().string());
    for (int number = 1;; ++number) {
        const std::string suffix = number == 1 ? "" : fmt::format("-{}", number);
        const std::string name = stem.substr(0, vmm::MachineConfig::kMaxName - suffix.size()) + suffix;
        auto opened = process.open_control(name, "");
        if (opened) {
            if (number > 1) {
                log_line("the name {} is in use; this guest is {}", stem, name);
            }
            return name;
        }
        const bool in_use = opened.error().code() == vmm::Code::invalid && options.guest.control.empty();
        if (!in_use || number == kMaxNumber) {
            return vmm::Failure{std::move(opened).error()};
        }
    }
}

Result<vmm::BootImage> load(const RunOptions& options, const std::vector<devices::virtio::Config>& virtio) {
    const vmm::Bytes file = TRY(advise(vmm::read_boot_file(options.image, "image", vmm::kMaxImageFile),
                                       "give the path of a kernel or of a guest of ours"));
    const std::vector<vmm::RegionConfig> memory = vmm::pc_memory_map(options.memory);
    vmm::BootOptions boot;
    boot.command_line = options.append;
    boot.memory = memory;
    devices::BoardConfig board;
    board.virtio = virtio;
    boot.platform = devices::describe_platform(board, static_cast<std::uint32_t>(options.vcpus));
    if (!options.initrd.empty()) {
        boot.initrd = TRY(advise(vmm::read_boot_file(options.initrd, "initrd", vmm::kMaxInitrdFile),
                                 "give the path of an initramfs, or leave --initrd away"));
    }
    return vmm::load_image(file, std::move(boot)).context(options.image);
}

Result<int> run(const RunOptions& options, migration::EventSink* extra) {
    // /dev/kvm, the image and the disks are the one's who starts the guest, and so is the bridge of a tap.
    constexpr std::array kCapabilities{CAP_DAC_OVERRIDE, CAP_NET_ADMIN};
    const std::unique_ptr<Sandbox> sandbox = TRY(Sandbox::begin(options.guest.sandbox, kCapabilities));
    const vmm::Kvm kvm = TRY(vmm::Kvm::open());
    TRY(check_back_ends(options.guest));
    if (!options.guest.control.empty()) {
        TRY(check_socket_path(options.guest.control, "control socket"));
    }
    std::vector<devices::virtio::Config> virtio = options.guest.devices;
    TRY(place_devices(virtio));
    vmm::BootImage image = TRY(load(options, virtio));
    EndSignals signals = TRY(EndSignals::block());
    const std::unique_ptr<GuestProcess> process =
        TRY(GuestProcess::create(options.guest, *sandbox, std::move(signals), extra));

    vmm::MachineConfig config;
    config.name = TRY(open_control(*process, options));
    config.uuid = make_uuid();
    config.ram_bytes = options.memory;
    config.vcpus = static_cast<std::uint32_t>(options.vcpus);
    migration::Guest guest;
    guest.machine = TRY(process->make_machine(kvm, std::move(config), std::move(virtio)));
    guest.machine->set_boot_image(std::move(image));
    guest.lifecycle = TRY(vmm::Lifecycle::create(*guest.machine));
    TRY(guest.lifecycle->boot());
    TRY(guest.lifecycle->resume());
    TRY(process->own(std::move(guest)));
    return process->serve();
}

}  // namespace

void add_run(Commands& commands) {
    CLI::App* app =
        commands.app.add_subcommand("run", "Run a guest until it ends or has moved to another host");
    app->footer(
        "The status is 0 after power-off, stop or a move to another host, (value << 1) | 1 when the guest "
        "wrote value\n"
        "to the exit port, 2 for wrong usage, 4 for a failure or a crash. SIGTERM, SIGINT and SIGHUP stop "
        "the guest.");
    auto options = std::make_shared<RunOptions>();
    app->add_option("IMAGE", options->image,
                    "Linux bzImage or vmlinux, PVH or multiboot ELF, or a flat 16-bit image")
        ->required();
    add_value(app, "-m,--memory", options->memory, parse_memory, "Memory, in bytes or with K, M, G (512M)");
    add_value(
        app, "-c,--cpus", options->vcpus,
        [](const std::string& text) { return parse_count(text, 1, vmm::MachineConfig::kMaxVcpus); },
        "Number of vCPUs (1)");
    app->add_option("--append", options->append, "Command line of the guest");
    app->add_option(
           "--initrd", options->initrd,
           fmt::format("Initial RAM disk of the guest, of at most {} MiB", vmm::kMaxInitrdFile >> 20))
        ->check(not_empty);
    add_guest_options(app, options->name, options->guest, DeviceSide::run);
    app->callback([&commands, options] {
        commands.chosen = [options, extra = commands.extra] {
            const Result<int> status = run(*options, extra);
            if (!status) {
                log_line("run: {}", status.error().text());
                return kFailureStatus;
            }
            return *status;
        };
    });
}

}  // namespace tools
