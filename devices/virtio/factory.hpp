// Which virtio devices a machine has, and how each is made.
#pragma once

#include <memory>
#include <string>
#include <variant>

#include "devices/serial_backend.hpp"
#include "devices/virtio/console.hpp"
#include "devices/virtio/disk_image.hpp"
#include "devices/virtio/mmio_transport.hpp"
#include "devices/virtio/net.hpp"

namespace devices::virtio {

struct NetConfig {
    std::string tap;
    MacAddress mac{};
};
struct ConsoleConfig {
    SerialConfig backend;
};
struct RngConfig {};

struct Config {
    std::string id;       // the user's name for it
    unsigned window = 0;  // where the driver finds it: the same on every host
    std::variant<DiskConfig, NetConfig, ConsoleConfig, RngConfig> what;
};

// Name and versions of the device's state.
vmm::StateId state_id_of(const Config& config);
// What the device would be if it were made now, or why it cannot be made. Nothing stays open.
vmm::Result<vmm::DeviceIdentity> examine(const Config& config);

struct Made {
    std::unique_ptr<Device> device;
    // Belong to the device, where it has such.
    vmm::Exclusive* exclusive = nullptr;
    Console* console = nullptr;
};
// Opens what the device needs of the host.
vmm::Result<Made> make_device(const Config& config, vmm::EventLoop& loop, SerialEvents events);

}  // namespace devices::virtio
