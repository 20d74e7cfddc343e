// The devices of the command line: --disk, --net, --console, --rng.
#pragma once

#include "devices/virtio/factory.hpp"
#include "tools/vmm/commands.hpp"

namespace tools {

enum class DeviceSide {
    run,      // a guest starts: its devices are these, in this order
    receive,  // a guest comes: its devices are its own, and find their host side here by id
};

void add_device_options(CLI::App* app, std::vector<devices::virtio::Config>& devices, DeviceSide side);

// "id=data,path=disk.img,ro,direct"
vmm::Result<devices::virtio::Config> parse_disk(std::string_view text);
// "id=lan,tap=tap0,mac=52:54:00:12:34:56"; without `mac` an address is made up, and `receive` takes none.
vmm::Result<devices::virtio::Config> parse_net(std::string_view text, DeviceSide side);
// A back end, as for --serial.
vmm::Result<devices::virtio::Config> parse_console(std::string_view text);

// Gives each device a window: disks first, then networks, consoles, entropy, so that the first disk is the
// first that a guest finds. Fails when there are too many, or two of one id.
vmm::Result<void> place_devices(std::vector<devices::virtio::Config>& devices);

}  // namespace tools
