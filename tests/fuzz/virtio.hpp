// Virtio devices for the targets that fuzz them: the host's side of each, and the thread that serves them.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "devices/virtio/factory.hpp"
#include "vmm/base/check.hpp"

namespace fuzz {

// One loop and its thread for all inputs.
struct IoThread {
    IoThread() : loop(std::move(*vmm::EventLoop::create())), thread([this] { (void)loop->run(); }) {}
    ~IoThread() {
        loop->stop();
        thread.join();
    }
    // Twice: what was ready before the first has then been served.
    void sync() {
        for (int i = 0; i < 2; ++i) {
            std::promise<void> served;
            loop->post([&] { served.set_value(); });
            served.get_future().wait();
        }
    }
    std::unique_ptr<vmm::EventLoop> loop;
    std::thread thread;
};

// The network's end of a network device.
using Wire = vmm::UniqueFd;

enum class Kind : std::uint8_t { disk, net, console, rng };
inline Kind kind_of(std::uint8_t byte) {
    return static_cast<Kind>(byte % 4);
}

inline std::unique_ptr<devices::virtio::Device> make_disk(vmm::EventLoop& loop) {
    char path[] = "/tmp/fuzz-disk-XXXXXX";
    const vmm::UniqueFd made{::mkstemp(path)};
    VERIFY(made && ::ftruncate(made.get(), 64 << 10) == 0);
    auto disk = devices::virtio::make_device({"disk", 0, devices::virtio::DiskConfig{path}}, loop, {});
    VERIFY(disk.has_value() && ::unlink(path) == 0);
    return std::move(disk->device);
}

inline std::unique_ptr<devices::virtio::Device> make_net(Wire& wire) {
    std::array<int, 2> ends{};
    VERIFY(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
    wire = Wire{ends[1]};
    auto net = devices::virtio::Net::create(devices::virtio::Tap::adopt(vmm::UniqueFd{ends[0]}), {});
    VERIFY(net.has_value());
    const std::array<std::byte, 3000> frame{};
    (void)!::write(wire.get(), frame.data(), frame.size());
    return std::move(*net);
}

inline std::unique_ptr<devices::virtio::Device> make_virtio(Kind kind, Wire& wire, vmm::EventLoop& loop) {
    using namespace devices::virtio;
    switch (kind) {
        case Kind::disk:
            return make_disk(loop);
        case Kind::net:
            return make_net(wire);
        case Kind::console:
            return std::move(make_device({"console", 0, ConsoleConfig{}}, loop, {})->device);
        default:
            return std::move(make_device({"rng", 0, RngConfig{}}, loop, {})->device);
    }
}

}  // namespace fuzz
