// A machine on FakeKvm whose guest is a function: it says what each KVM_RUN comes back with.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <thread>

#include "tests/unit/kvm/fake_kvm.hpp"
#include "vmm/machine/lifecycle.hpp"

// KVM_RUN of a guest that loops without exits: it ends by a signal, or by immediate_exit set meanwhile.
inline int spin(kvm_run& run) {
    const timespec brief{0, 20'000'000};
    for (;;) {
        if (__atomic_load_n(&run.immediate_exit, __ATOMIC_SEQ_CST) != 0 ||
            ::nanosleep(&brief, nullptr) != 0) {
            return EINTR;
        }
    }
}

inline int out(kvm_run& run, std::uint16_t port, std::uint8_t value) {
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = KVM_EXIT_IO_OUT;
    run.io.size = 1;
    run.io.count = 1;
    run.io.port = port;
    run.io.data_offset = 4096;
    reinterpret_cast<std::uint8_t*>(&run)[4096] = value;
    return 0;
}

// For devices to come to rest: only a failure reaches it.
inline constexpr vmm::Duration kRestLimit = std::chrono::seconds{60};

struct FakeDeviceState {
    static constexpr vmm::StateId id{"fake-device", 1, 1};
    std::uint8_t value = 0;
    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("value", self.value);
    }
};

// Port 0x10 stores a byte; port 0x11 asks for a reset, 0x12 for an exit with the byte, 0x13 for power-off.
class FakeDevice final : public vmm::Device, public vmm::BusDevice {
  public:
    explicit FakeDevice(vmm::MachineControl& control) : control_(control) {}

    vmm::DeviceIdentity identity() const override { return {FakeDeviceState::id, 0}; }
    vmm::Result<std::uint64_t> pause(vmm::Duration) override {
        if (stuck) {
            return vmm::fail(vmm::Code::timeout, "fake device: stuck");
        }
        ++pauses;
        return in_flight.load();
    }
    void resume() override { ++resumes; }
    void reset() override { value = 0; }
    void save(vmm::SnapshotWriter& snapshot) const override {
        FakeDeviceState state;
        state.value = value.load();
        snapshot.put(0, state);
    }
    vmm::Result<void> restore(vmm::SnapshotReader& snapshot) override {
        value = TRY(snapshot.take<FakeDeviceState>(0)).value;
        return {};
    }
    void read(std::uint64_t, std::span<std::byte>) override {}
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        const auto byte = static_cast<std::uint8_t>(data[0]);
        switch (offset) {
            case 0:
                value = byte;
                break;
            case 1:
                control_.reset();
                break;
            case 2:
                control_.exit(byte);
                break;
            default:
                control_.power_off();
                break;
        }
    }

    std::atomic<std::uint8_t> value = 0;
    std::atomic<bool> stuck = false;
    std::atomic<std::uint64_t> in_flight = 0;  // what a pause drains
    std::atomic<int> pauses = 0;
    std::atomic<int> resumes = 0;

  private:
    vmm::MachineControl& control_;
};

struct MachineFixture {
    // `guest` is what KVM_RUN does; see FakeKvm::on_run. `msrs` are known besides the usual ones.
    explicit MachineFixture(std::function<int(kvm_run&)> guest, std::uint32_t vcpus = 1,
                            std::vector<std::uint32_t> msrs = {}) {
        for (const std::uint32_t msr : msrs) {
            fake.listed_msrs.push_back(msr);
            fake.known_msrs.insert(msr);
        }
        fake.on_run = std::move(guest);
        kvm.emplace(std::move(*vmm::Kvm::open(fake)));
        vmm::MachineConfig config;
        config.ram_bytes = 1 << 20;
        config.vcpus = vcpus;
        config.backing = vmm::Backing::small;
        machine = std::move(*vmm::Machine::create(*kvm, config));
        auto owned = std::make_unique<FakeDevice>(machine->control());
        device = owned.get();
        (void)machine->ports().insert(0x10, 4, *owned);
        machine->add_device(std::move(owned));
        vmm::BootImage image;
        image.entry = 0x7c00;
        image.segments.push_back({0x7c00, vmm::Bytes(16, std::byte{0x90}), 0});
        machine->set_boot_image(std::move(image));
        lifecycle = std::move(*vmm::Lifecycle::create(*machine));
    }

    FakeKvm fake;
    std::optional<vmm::Kvm> kvm;
    std::unique_ptr<vmm::Machine> machine;
    FakeDevice* device = nullptr;
    std::unique_ptr<vmm::Lifecycle> lifecycle;
};

// Waits up to five seconds.
template <typename Condition>
bool eventually(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
        if (condition()) {
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    return condition();
}
