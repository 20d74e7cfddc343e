// A virtio console (virtio 1.2 section 5.3) with one port, whose host side is a back end of the serial port.
//
// What the guest writes stays in its queue until the host takes it, so it goes with the guest; while nobody
// listens it is dropped.
#pragma once

#include <optional>

#include "devices/serial_backend.hpp"
#include "devices/virtio/device.hpp"

namespace devices::virtio {

struct ConsoleState {
    static constexpr vmm::StateId id{"virtio-console", 1, 1};

    MmioState transport;
    std::uint64_t delivered = 0;  // bytes of the next request that the host has taken already

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("transport", self.transport);
        v.field("delivered", self.delivered);
    }
};

class Console final : public Device, private SerialWire {
  public:
    explicit Console(std::unique_ptr<SerialBackend> backend) : backend_(std::move(backend)) {}

    std::uint32_t type() const override { return kDeviceConsole; }
    vmm::DeviceIdentity identity() const override { return {ConsoleState::id}; }
    std::uint64_t features() const override { return 0; }
    std::span<const std::uint16_t> queue_sizes() const override;
    vmm::Result<void> attach(Transport& transport) override;
    std::span<const std::byte> config() const override { return config_; }
    void write_config(std::uint64_t, std::span<const std::byte>) override {}
    void accept(std::uint64_t) override {}
    void process(unsigned queue) override;
    void reset() override { delivered_ = 0; }
    std::size_t in_flight() const override { return 0; }
    void paused() override {}
    void resumed(bool) override {}
    void save(vmm::SnapshotWriter& snapshot, std::uint32_t instance,
              const MmioState& transport) const override;
    vmm::Result<MmioState> restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                   const Check& check) override;

  private:
    // SerialWire
    bool transmit(const std::function<std::size_t(std::span<const std::byte>)>& deliver) override;
    bool receive(const std::function<std::size_t(std::span<std::byte>)>& fetch) override;
    void set_listener(Listener listener) override;

    // With the lock held.
    bool usable(unsigned queue) const;
    vmm::Result<bool> transmit_some(const std::function<std::size_t(std::span<const std::byte>)>& deliver);
    vmm::Result<bool> receive_some(const std::function<std::size_t(std::span<std::byte>)>& fetch);
    vmm::Result<void> drop_output();
    bool report(vmm::Result<bool> result, unsigned queue);

    const std::array<std::byte, 12> config_{};  // 5.3.4: of features that are not offered
    Transport* transport_ = nullptr;
    Listener listener_ = Listener::absent;
    std::uint64_t delivered_ = 0;
    // Last, so destroyed first: its thread calls us.
    std::unique_ptr<SerialBackend> backend_;
};

}  // namespace devices::virtio
