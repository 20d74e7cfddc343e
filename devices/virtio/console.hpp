// A virtio console (virtio 1.2 section 5.3) with one port, whose host side is a back end of the serial port.
//
// It never makes its guest wait: Linux spins with interrupts off until its output is taken. What the host has
// not taken waits in a queue that belongs to the state; when it is full the newest is kept.
#pragma once

#include "devices/byte_queue.hpp"
#include "devices/serial_backend.hpp"
#include "devices/virtio/device.hpp"

namespace devices::virtio {

struct ConsoleState {
    static constexpr vmm::StateId id{"virtio-console", 1, 1};
    static constexpr std::size_t kOutputLimit = 64 << 10;

    MmioState transport;
    vmm::Bytes output;  // that the host has not taken

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("transport", self.transport);
        v.bytes("output", self.output, kOutputLimit);
    }
};

class Console final : public Device, private SerialWire {
  public:
    explicit Console(std::unique_ptr<SerialBackend> backend) : backend_(std::move(backend)) {}

    // As Serial16550::flush(): for the end of a guest.
    bool flush(vmm::Duration limit);

    std::uint32_t type() const override { return kDeviceConsole; }
    vmm::DeviceIdentity identity() const override { return {ConsoleState::id}; }
    std::uint64_t features() const override { return 0; }
    std::span<const std::uint16_t> queue_sizes() const override;
    vmm::Result<void> attach(Transport& transport) override;
    std::span<const std::byte> config() const override { return config_; }
    void write_config(std::uint64_t, std::span<const std::byte>) override {}
    void accept(std::uint64_t) override {}
    void process(unsigned queue) override;
    // Output that waits has left the device already and stays.
    void reset() override {}
    std::size_t in_flight() const override { return 0; }
    void resumed(Resumed) override { backend_->wake(); }
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
    vmm::Result<void> take_output(const Chain& chain);
    vmm::Result<bool> give_input(const std::function<std::size_t(std::span<std::byte>)>& fetch);

    const std::array<std::byte, 12> config_{};  // 5.3.4: of features that are not offered
    Transport* transport_ = nullptr;
    Listener listener_ = Listener::absent;
    ByteQueue output_{ConsoleState::kOutputLimit};
    bool flushing_ = false;  // the guest has ended: output flows although paused
    // Last, so destroyed first: its thread calls us.
    std::unique_ptr<SerialBackend> backend_;
};

}  // namespace devices::virtio
