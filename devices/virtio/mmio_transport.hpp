// MmioTransport: virtio over MMIO, version 2 (virtio 1.2 section 4.2), around any virtio::Device.
//
// Notifications come through an event descriptor for each queue, which KVM signals (ioeventfd) and the I/O
// thread watches; interrupts leave through one that KVM turns into an edge on the line (irqfd). Both may be
// in flight when the machine pauses: resume() raises the interrupt again while InterruptStatus is not 0, and
// tells every queue that there may be requests.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

#include "devices/virtio/device.hpp"
#include "vmm/guest/bus.hpp"
#include "vmm/guest/device.hpp"

namespace devices::virtio {

class MmioTransport final : public vmm::Device, public vmm::BusDevice, private Transport {
  public:
    // Bytes of the register window.
    static constexpr std::uint64_t kWindow = 0x1000;
    // QueueNotify, of 4 bytes: what an ioeventfd is set to.
    static constexpr std::uint64_t kQueueNotify = 0x050;

    struct Place {
        std::string id;              // the user's name for it
        std::uint32_t instance = 0;  // its window
        vmm::GuestMemory& memory;
        vmm::EventLoop& loop;
        // The driver broke a rule for the first time, or the host side failed; with the device's lock held.
        std::function<void(const std::string& what)> report;
    };
    // What the place refers to must outlive it. Not destroyed on the I/O thread.
    ~MmioTransport() override;
    static vmm::Result<std::unique_ptr<MmioTransport>> create(std::unique_ptr<virtio::Device> device,
                                                              Place place);

    // Written when the line is to have an edge.
    int interrupt_fd() const { return interrupt_.fd(); }
    // To be signalled when the number of the queue is written to QueueNotify.
    std::size_t queues() const { return queues_.size(); }
    int notify_fd(std::size_t queue) const { return queues_[queue].notify.fd(); }

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    vmm::DeviceIdentity identity() const override;
    vmm::Result<std::uint64_t> pause(vmm::Duration limit) override;
    void resume() override;
    void reset() override;
    void save(vmm::SnapshotWriter& snapshot) const override;
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override;

  private:
    struct Queue {
        VirtQueue ring;
        vmm::WakeFd notify;
        vmm::EventLoop::Watch watch;
    };

    MmioTransport(std::unique_ptr<virtio::Device> device, Place place, vmm::WakeFd interrupt);
    vmm::Result<void> set_up();
    std::string name() const;

    // Transport
    vmm::GuestMemory& memory() override { return place_.memory; }
    bool active() const override;
    VirtQueue& queue(unsigned index) override { return queues_[index].ring; }
    void used(unsigned index) override;
    void config_changed() override;
    void needs_reset(const vmm::Error& why) override;
    void come_again(unsigned index) override { queues_[index].notify.wake(); }
    void host_failed(const vmm::Error& why) override;
    void settled() override { settled_.notify_all(); }
    void locked(const std::function<void()>& call) override;
    vmm::Result<vmm::EventLoop::Watch> watch(int fd, std::uint32_t interest,
                                             std::function<void()> handler) override;

    // All below with mutex_ held.
    std::uint64_t offered() const;
    std::uint32_t read_register(std::uint64_t offset) const;
    void write_register(std::uint64_t offset, std::uint32_t value);
    void write_status(std::uint32_t value);
    void write_queue(std::uint64_t offset, std::uint32_t value);
    Queue* selected();
    const Queue* selected() const;
    void interrupt(std::uint32_t reason);
    void start_over();
    bool acceptable(std::uint64_t features) const;
    void accept_features();
    void serve(unsigned queue);
    vmm::Result<void> check(const MmioState& state) const;

    const Place place_;
    const vmm::WakeFd interrupt_;

    mutable std::mutex mutex_;
    std::condition_variable settled_;
    MmioState state_;  // its `queues` is empty: they are in queues_
    bool paused_ = true;
    mutable Resumed how_ = Resumed::paused;  // of the next resume()
    bool broken_ = false;                    // and reported
    // Last, so destroyed first: both have handlers that call us. A deque, because queues do not move.
    std::unique_ptr<virtio::Device> device_;
    std::deque<Queue> queues_;
};

}  // namespace devices::virtio
