// Rigs of the virtio devices: each with a transport, a driver, and a host side of its own.
#pragma once

#include <sys/socket.h>

#include <filesystem>
#include <fstream>

#include "devices/virtio/blk.hpp"
#include "devices/virtio/console.hpp"
#include "devices/virtio/net.hpp"
#include "devices/virtio/rng.hpp"
#include "tests/unit/devices/device_state.hpp"
#include "tests/unit/devices/serial_host.hpp"
#include "tests/unit/devices/virtio_host.hpp"

namespace tests {

template <typename DeviceState>
struct VirtioRig {
    using State = DeviceState;
    static constexpr bool kStateless = false;
    static constexpr std::uint64_t kRegisters = 0x200;
    static constexpr std::uint64_t kFeatures = VirtioHost::kVersion1 | VirtioHost::kEventIdx;

    vmm::Device& device() { return host.transport(); }
    vmm::BusDevice& bus() { return host.transport(); }
    // The rest is what the host side is like.
    static bool changes(const std::string& path) {
        return path != "transport.queues.count" && path != "sectors" && path != "read_only" &&
               !path.starts_with("mac");
    }
    static State kept(State state) {
        if constexpr (requires { state.output; }) {
            state.output.clear();  // it has left the device
        }
        return state;
    }

    // A chain is put in a queue of its own device, and served.
    void use(unsigned queue, const std::vector<Piece>& pieces) {
        host.add(queue, pieces);
        host.kick(queue);
        host.wait_used(queue, 1);
    }
    // At last the driver breaks a rule, so that no queue is looked at again, whatever the memory of the rig
    // that restores this. The select registers are left at odd values.
    void finish(unsigned queue = 0) {
        host.publish(queue, 1000);
        host.kick(queue);
        host.sync();
        host.write(mmio::kDeviceFeaturesSel, ++selects);
        host.write(mmio::kDriverFeaturesSel, selects);
        host.write(mmio::kQueueSel, selects);
        (void)host.transport().pause(kPauseLimit);
    }

    VirtioHost host;
    std::uint32_t selects = 100;
};

struct RngRig : VirtioRig<devices::virtio::RngState> {
    RngRig() { host.make(std::make_unique<devices::virtio::Rng>()); }
    void populate() {
        host.start(kFeatures, 1);
        use(0, {{VirtioHost::kData, 16, true}});
        finish();
    }
};

struct BlkRig : VirtioRig<devices::virtio::BlkState> {
    BlkRig() {
        const std::string path = folder.file("disk");
        std::ofstream{path}.close();
        std::filesystem::resize_file(path, 64 << 10);
        auto device = devices::virtio::Blk::create(
            std::move(*devices::virtio::DiskImage::open({path, false, false})), "disk");
        REQUIRE(device);
        host.make(std::move(*device));
    }
    void populate() {
        host.start(kFeatures, 1);
        host.store(VirtioHost::kData, std::uint32_t{4});  // flush
        use(0, {{VirtioHost::kData, 16}, {VirtioHost::kData + 16, 1, true}});
        finish();
    }

    TempFolder folder;
};

struct NetRig : VirtioRig<devices::virtio::NetState> {
    static constexpr std::uint64_t kAnnounce = std::uint64_t{1} << 17 | std::uint64_t{1} << 21;

    NetRig() {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
        wire = vmm::UniqueFd{ends[1]};
        auto device = devices::virtio::Net::create(devices::virtio::Tap::adopt(vmm::UniqueFd{ends[0]}),
                                                   {0x52, 0x54, 0, 1, 2, 3});
        REQUIRE(device);
        host.make(std::move(*device));
    }
    void populate() {
        host.start(kFeatures | kAnnounce, 3);
        const std::array<std::byte, 72> frame{};
        REQUIRE(::write(wire.get(), frame.data(), frame.size()) == static_cast<ssize_t>(frame.size()));
        use(0, {{VirtioHost::kData, 1600, true}});
        use(1, {{VirtioHost::kData, 72}});
        host.store(VirtioHost::kData, std::uint16_t{3});
        use(2, {{VirtioHost::kData, 2}, {VirtioHost::kData + 8, 1, true}});
        // As if it had moved: it asks its driver to announce itself.
        (void)host.transport().pause(kPauseLimit);
        REQUIRE(restore(device(), save(device())));
        device().resume();
        finish(1);
    }

    vmm::UniqueFd wire;
};

struct ConsoleRig : VirtioRig<devices::virtio::ConsoleState> {
    ConsoleRig() {
        host.make(std::make_unique<devices::virtio::Console>(std::make_unique<FakeBackend>(wire)));
    }
    void populate() {
        host.start(kFeatures, 2);
        wire.listen();
        host.add(0, {{VirtioHost::kData, 16, true}});
        wire.type("typed");
        host.set_text(VirtioHost::kData + 64, "undelivered");
        use(1, {{VirtioHost::kData + 64, 11}});
        host.publish(0, 1000);
        wire.type("nothing");  // makes it look at its queue
        finish();
    }

    FakeWire wire;
};

}  // namespace tests
