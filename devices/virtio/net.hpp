// A virtio network device (virtio 1.2 section 5.1) with one pair of queues, on a tap of the host.
//
// After a migration the network must learn where the guest is: the device sends RARP requests with the
// guest's address from the new tap, several times because the first may be lost, and asks a driver that can
// (GUEST_ANNOUNCE) to announce itself.
#pragma once

#include <array>
#include <vector>

#include "devices/virtio/device.hpp"
#include "devices/virtio/tap.hpp"

namespace devices::virtio {

using MacAddress = std::array<std::uint8_t, 6>;

struct NetState {
    static constexpr vmm::StateId id{"virtio-net", 1, 1};

    MmioState transport;
    MacAddress mac{};
    bool announce = false;  // the driver has been asked to announce itself, and has not yet

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("transport", self.transport);
        v.field("mac", self.mac);
        v.field("announce", self.announce);
    }
};

class Net final : public Device {
  public:
    // A guest that comes from elsewhere brings its address.
    static vmm::Result<std::unique_ptr<Net>> create(Tap tap, const MacAddress& mac);

    std::uint32_t type() const override { return kDeviceNet; }
    vmm::DeviceIdentity identity() const override { return {NetState::id}; }
    std::uint64_t features() const override;
    std::span<const std::uint16_t> queue_sizes() const override;
    vmm::Result<void> attach(Transport& transport) override;
    std::span<const std::byte> config() const override { return config_; }
    // The address is read-only for a driver of version 1 (5.1.4).
    void write_config(std::uint64_t, std::span<const std::byte>) override {}
    void accept(std::uint64_t features) override;
    void process(unsigned queue) override;
    void reset() override;
    std::size_t in_flight() const override { return 0; }
    void resumed(Resumed how) override;
    void save(vmm::SnapshotWriter& snapshot, std::uint32_t instance,
              const MmioState& transport) const override;
    vmm::Result<MmioState> restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                   const Check& check) override;

  private:
    // What has been taken from the receive queue for one frame.
    struct Buffer {
        Chain chain;
        std::size_t size = 0;
    };

    Net(Tap tap, vmm::UniqueFd timer, const MacAddress& mac);

    void on_tap();
    vmm::Result<void> receive();
    void drop_stale();
    bool fetch();
    // False: the driver has given too few buffers for the frame that waits.
    vmm::Result<bool> deliver();
    vmm::Result<bool> gather_buffers();
    vmm::Result<void> transmit(const Chain& chain);
    vmm::Result<void> control(const Chain& chain);
    std::uint8_t obey(const Chain& chain);
    void announce_from_host();
    void set_announce(bool on);
    void write_mac(const MacAddress& mac);

    const Tap tap_;
    const vmm::UniqueFd timer_;
    Transport* transport_ = nullptr;
    vmm::EventLoop::Watch tap_watch_;
    vmm::EventLoop::Watch timer_watch_;

    std::array<std::byte, 12> config_{};
    MacAddress mac_{};
    std::uint64_t features_ = 0;
    Tap::Offload offload_;
    bool tap_failed_ = false;
    // Of a guest that comes from elsewhere: the tap has what was broadcast here since Prepare.
    bool stale_ = false;
    bool announce_ = false;
    unsigned announcements_left_ = 0;
    vmm::Bytes received_ = vmm::Bytes(Tap::kMaxFrame);
    std::size_t received_size_ = 0;  // of the frame that waits for buffers; 0: none
    vmm::Bytes sent_ = vmm::Bytes(Tap::kMaxFrame);
    std::vector<Buffer> buffers_;
};

}  // namespace devices::virtio
