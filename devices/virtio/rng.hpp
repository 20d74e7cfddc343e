// A virtio entropy device (virtio 1.2 section 5.4): every request is filled from getrandom(2) of the host.
#pragma once

#include "devices/virtio/device.hpp"

namespace devices::virtio {

struct RngState {
    static constexpr vmm::StateId id{"virtio-rng", 1, 1};

    MmioState transport;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("transport", self.transport);
    }
};

class Rng final : public Device {
  public:
    std::uint32_t type() const override { return kDeviceRng; }
    vmm::DeviceIdentity identity() const override { return {RngState::id}; }
    std::uint64_t features() const override { return 0; }
    std::span<const std::uint16_t> queue_sizes() const override;
    vmm::Result<void> attach(Transport& transport) override;
    std::span<const std::byte> config() const override { return {}; }
    void write_config(std::uint64_t, std::span<const std::byte>) override {}
    void accept(std::uint64_t) override {}
    void process(unsigned queue) override;
    void reset() override {}
    std::size_t in_flight() const override { return 0; }
    void resumed(Resumed) override {}
    void save(vmm::SnapshotWriter& snapshot, std::uint32_t instance,
              const MmioState& transport) const override;
    vmm::Result<MmioState> restore(vmm::SnapshotReader& snapshot, std::uint32_t instance,
                                   const Check& check) override;

  private:
    vmm::Result<void> serve(const Chain& chain);

    Transport* transport_ = nullptr;
};

}  // namespace devices::virtio
