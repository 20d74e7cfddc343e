// What a virtio device type is to its transport, and the transport to it.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "devices/virtio/mmio_state.hpp"
#include "devices/virtio/virtqueue.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/base/event_loop.hpp"
#include "vmm/guest/device.hpp"
#include "vmm/state/snapshot.hpp"

namespace devices::virtio {

// The transport as its device sees it. Called with the device's lock held.
class Transport {
  public:
    virtual ~Transport() = default;

    virtual vmm::GuestMemory& memory() = 0;
    // Whether the driver is ready and the machine runs: only then may queues be used.
    virtual bool active() const = 0;
    virtual VirtQueue& queue(unsigned index) = 0;
    // Interrupts the driver if it wants to know what was pushed to the queue.
    virtual void used(unsigned index) = 0;
    // process() is to be called again for that queue, once others have had their turn.
    virtual void come_again(unsigned index) = 0;
    virtual void config_changed() = 0;
    // The driver broke a rule: the device stops until it is reset (2.1.2). Nothing of its queues may be used
    // any more.
    virtual void needs_reset(const vmm::Error& why) = 0;
    // The host side of the device is of no use any more; reported once.
    virtual void host_failed(const vmm::Error& why) = 0;
    // Something that was in flight has ended; pause() may wait for it.
    virtual void settled() = 0;
    // For calls that come without the lock, on the I/O thread: makes `call` with it.
    virtual void locked(const std::function<void()>& call) = 0;
    // Calls `handler` on the I/O thread, with the device's lock held, when `fd` has `interest`. Not with the
    // lock held.
    virtual vmm::Result<vmm::EventLoop::Watch> watch(int fd, std::uint32_t interest,
                                                     std::function<void()> handler) = 0;
};

// What was before a device goes on.
enum class Resumed : std::uint8_t {
    paused,   // nothing else
    saved,    // a move that was undone: it may have been elsewhere for a moment
    restored  // it was elsewhere
};

// One type of device (virtio 1.2 section 5). The transport calls it with the device's lock held and owns the
// lock; so the device has none. Everything but attach() comes on the I/O thread, the vCPUs' threads and the
// thread that controls the machine.
class Device {
  public:
    virtual ~Device() = default;

    virtual std::uint32_t type() const = 0;
    // All but instance and id.
    virtual vmm::DeviceIdentity identity() const = 0;
    // Those of the type; the transport adds its own.
    virtual std::uint64_t features() const = 0;
    // The largest size of each queue.
    virtual std::span<const std::uint16_t> queue_sizes() const = 0;
    // Once, before anything else, without the lock: the device may watch descriptors now.
    virtual vmm::Result<void> attach(Transport& transport) = 0;

    // The whole configuration space, from which the driver reads; and what it writes there.
    virtual std::span<const std::byte> config() const = 0;
    virtual void write_config(std::uint64_t offset, std::span<const std::byte> data) = 0;

    // The driver has accepted these, of those offered; also after a restore.
    virtual void accept(std::uint64_t features) = 0;
    // There may be requests in the queue, which is ready; on the I/O thread. On a driver's fault
    // needs_reset().
    virtual void process(unsigned queue) = 0;
    // The driver has taken the queue away (4.2.2.2): nothing that came from it touches memory any more.
    virtual void queue_stopped(unsigned) {}
    // The driver, or the machine, starts over.
    virtual void reset() = 0;

    // Requests that have left their queue and not been answered: pause() waits until there are none.
    virtual std::size_t in_flight() const = 0;
    // After the queues were told that there may be requests.
    virtual void resumed(Resumed how) = 0;

    virtual void save(vmm::SnapshotWriter& snapshot, std::uint32_t instance,
                      const MmioState& transport) const = 0;
    // Takes the section, checks all of it, the transport's part with `check`, then changes itself and returns
    // that part.
    using Check = std::function<vmm::Result<void>(const MmioState&)>;
    virtual vmm::Result<MmioState> restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                           const Check& check) = 0;
};

// Serves the requests of a queue one after another, with `serve(chain)`, while `ready()`: a device that is
// not calls again when it is. A driver that adds them as fast as they are served does not keep the I/O thread
// from others.
template <typename Serve, typename Ready>
vmm::Result<void> serve_requests(Transport& transport, unsigned index, Serve serve, Ready ready) {
    constexpr int kAtOnce = 64;
    VirtQueue& queue = transport.queue(index);
    for (int i = 0; i < kAtOnce; ++i) {
        if (!ready()) {
            return {};
        }
        if (const auto chain = TRY(queue.pop())) {
            TRY(serve(*chain));
        } else if (!TRY(queue.ask_for_notification())) {
            return {};
        }
    }
    transport.come_again(index);
    return {};
}
template <typename Serve>
vmm::Result<void> serve_requests(Transport& transport, unsigned index, Serve serve) {
    return serve_requests(transport, index, serve, [] { return true; });
}

}  // namespace devices::virtio
