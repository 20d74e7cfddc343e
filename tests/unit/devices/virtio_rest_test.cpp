// How a virtio device comes to rest in a pause, whatever it is: what is in flight is finished, within a
// limit.
#include "devices/virtio/rng.hpp"
#include "tests/unit/devices/virtio_host.hpp"

using namespace tests::mmio;
using tests::VirtioHost;

namespace {

// Takes requests and finishes them when the test says so.
class SlowDevice final : public devices::virtio::Device {
  public:
    explicit SlowDevice(std::vector<std::string>& calls) : calls_(calls) {}

    // Finishes all; what happens on the I/O thread, with the lock.
    void finish() {
        transport_->locked([this] {
            for (const std::uint16_t head : heads_) {
                REQUIRE(transport_->queue(0).push(head, 0));
            }
            heads_.clear();
            transport_->used(0);
            transport_->settled();
        });
    }
    std::size_t begun() {
        std::size_t count = 0;
        transport_->locked([&] { count = heads_.size(); });
        return count;
    }

    std::uint32_t type() const override { return devices::virtio::kDeviceRng; }
    vmm::DeviceIdentity identity() const override { return {devices::virtio::RngState::id}; }
    std::uint64_t features() const override { return 0; }
    std::span<const std::uint16_t> queue_sizes() const override { return kSizes; }
    vmm::Result<void> attach(devices::virtio::Transport& transport) override {
        transport_ = &transport;
        return {};
    }
    std::span<const std::byte> config() const override { return {}; }
    void write_config(std::uint64_t, std::span<const std::byte>) override {}
    void accept(std::uint64_t) override {}
    void process(unsigned) override {
        while (auto chain = *transport_->queue(0).pop()) {
            heads_.push_back(chain->head);
        }
    }
    void reset() override {}
    std::size_t in_flight() const override { return heads_.size(); }
    void resumed(devices::virtio::Resumed) override { calls_.emplace_back("resumed"); }
    void save(vmm::SnapshotWriter&, std::uint32_t, const devices::virtio::MmioState&) const override {}
    vmm::Result<devices::virtio::MmioState> restore(vmm::SnapshotReader&, std::uint32_t,
                                                    const Check&) override {
        return devices::virtio::MmioState{};
    }

  private:
    static constexpr std::array<std::uint16_t, 1> kSizes{VirtioHost::kQueueSize};

    std::vector<std::string>& calls_;
    devices::virtio::Transport* transport_ = nullptr;
    std::vector<std::uint16_t> heads_;
};

struct SlowHost : VirtioHost {
    SlowHost() {
        auto made = std::make_unique<SlowDevice>(calls);
        device = made.get();
        make(std::move(made));
        start(kVersion1, 1);
        calls.clear();
    }
    void request() {
        add(0, {{kData, 64, true}});
        kick(0);
        sync();
    }

    std::vector<std::string> calls;
    SlowDevice* device = nullptr;
};

}  // namespace

TEST_CASE("a pause waits for what is in flight, begins nothing, and says how much it was", "[devices]") {
    SlowHost host;
    host.request();
    host.request();
    REQUIRE(host.device->begun() == 2);
    auto pause = std::async(std::launch::async, [&] { return host.transport().pause(tests::kPauseLimit); });
    CHECK(pause.wait_for(std::chrono::milliseconds{30}) == std::future_status::timeout);
    host.request();
    CHECK(host.device->begun() == 2);
    host.device->finish();
    const auto drained = pause.get();
    REQUIRE(drained);
    CHECK(*drained == 2);
    CHECK(host.used_index(0) == 2);
    CHECK(*host.transport().pause(tests::kPauseLimit) == 0);
    host.transport().resume();
    host.sync();
    CHECK(host.device->begun() == 1);
}

TEST_CASE("a pause that waits in vain names the device, and all goes on", "[devices]") {
    SlowHost host;
    host.request();
    const auto paused = host.transport().pause(std::chrono::milliseconds{10});
    REQUIRE(!paused);
    CHECK(paused.error().code() == vmm::Code::timeout);
    CHECK(paused.error().text() == "virtio-rng \"test\": 1 requests are still with the host after 10 ms");
    CHECK(host.calls == std::vector<std::string>{"resumed"});
    host.request();
    CHECK(host.device->begun() == 2);
    host.device->finish();
    CHECK(host.wait_used(0, 2).size() == 2);
    CHECK(*host.transport().pause(tests::kPauseLimit) == 0);
}
