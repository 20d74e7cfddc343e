#include "vmm/machine/vcpu_thread.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/machine/machine_fixture.hpp"

namespace {

struct VcpuFixture {
    explicit VcpuFixture(std::function<int(kvm_run&)> guest)
        : vm(fake), vcpu(vm.vcpu()), dispatcher(ports, mmio, requests) {
        fake.on_run = std::move(guest);
        thread = std::move(*vmm::VcpuThread::create(*vcpu, dispatcher));
    }
    void park() {
        thread->request_park();
        thread->wait_parked();
    }

    FakeKvm fake;
    FakeVm vm;
    std::unique_ptr<vmm::Vcpu> vcpu;
    vmm::Bus ports;
    vmm::Bus mmio;
    vmm::GuestRequests requests;
    vmm::ExitDispatcher dispatcher;
    std::unique_ptr<vmm::VcpuThread> thread;
};

// Counts what it is written.
class Counter final : public vmm::BusDevice {
  public:
    void read(std::uint64_t, std::span<std::byte>) override {}
    void write(std::uint64_t, std::span<const std::byte>) override { ++writes; }
    std::atomic<int> writes = 0;
};

}  // namespace

TEST_CASE("a thread is created parked, after one KVM_RUN that ran nothing", "[machine]") {
    std::atomic<int> entered = 0;
    VcpuFixture f{[&](kvm_run& run) {
        ++entered;
        return spin(run);
    }};
    CHECK(entered == 0);
    CHECK(f.fake.take_calls().back() == "RUN");
    CHECK_FALSE(f.thread->ever_entered());
}

TEST_CASE("run, park, run again, many times: no kick is lost", "[machine]") {
    VcpuFixture f{spin};
    const vmm::TimePoint before = vmm::real_clock().now();
    for (int i = 0; i < 300; ++i) {
        f.thread->run();
        if (i % 3 != 0) {  // otherwise it is parked before or while it wakes
            REQUIRE(f.thread->wait_entered().value() >= before);
        }
        f.park();
    }
    CHECK(f.thread->ever_entered());
}

TEST_CASE("an exit is completed before the vCPU counts as parked, in as many pieces as it takes",
          "[machine]") {
    // The guest's instruction has three accesses. KVM returns the second and third from KVM_RUN with
    // immediate_exit, so the fake must not see that flag: it is a guest of its own here.
    struct Pieces final : vmm::IoctlPort {
        FakeKvm fake;
        std::atomic<int> pieces = 0;
        std::atomic<bool> armed = false;
        kvm_run* shared = nullptr;
        int open(const char* path) override { return fake.open(path); }
        vmm::Result<vmm::Mapping> map(int fd, std::size_t size) override {
            auto mapping = fake.map(fd, size);
            shared = reinterpret_cast<kvm_run*>(mapping->bytes().data());
            return mapping;
        }
        int ioctl(int fd, unsigned long request, unsigned long argument) override {
            if (request != KVM_RUN || !armed) {
                return fake.ioctl(fd, request, argument);
            }
            if (pieces == 3) {  // the instruction is done
                errno = EINTR;
                return -1;
            }
            ++pieces;
            return out(*shared, 0x10, 0);
        }
    } port;
    auto kvm = std::move(*vmm::Kvm::open(port));
    const vmm::RegionConfig region{vmm::Gpa{0}, 1 << 20};
    auto memory = std::move(*vmm::GuestMemory::create({&region, 1}, vmm::Backing::small));
    auto vm = std::move(*vmm::KvmVm::create(kvm, &memory));
    auto vcpu = std::move(*vmm::Vcpu::create(*vm, 0, *kvm.supported_cpuid(), 0));
    vmm::Bus ports;
    vmm::Bus mmio;
    vmm::GuestRequests requests;
    // Asks for a reset at the first access: the vCPU parks by itself, but only after the other two.
    struct Resetter final : vmm::BusDevice {
        explicit Resetter(vmm::GuestRequests& r) : requests(r) {}
        void read(std::uint64_t, std::span<std::byte>) override {}
        void write(std::uint64_t, std::span<const std::byte>) override {
            ++writes;
            requests.reset();
        }
        vmm::GuestRequests& requests;
        std::atomic<int> writes = 0;
    } device{requests};
    REQUIRE(ports.insert(0x10, 1, device));
    vmm::ExitDispatcher dispatcher{ports, mmio, requests};
    auto thread = std::move(*vmm::VcpuThread::create(*vcpu, dispatcher));
    port.armed = true;
    thread->run();
    REQUIRE(thread->wait_entered());
    thread->wait_parked();
    CHECK(device.writes == 3);
    CHECK(port.shared->immediate_exit == 1);
}

TEST_CASE("a KVM_RUN that fails is a crash of the guest, not of the process", "[machine]") {
    VcpuFixture f{[](kvm_run&) { return EFAULT; }};
    f.thread->run();
    f.thread->wait_parked();
    CHECK_FALSE(f.thread->wait_entered());
    CHECK_FALSE(f.thread->ever_entered());
    const auto request = f.requests.take();
    REQUIRE(request);
    CHECK(request->kind == vmm::GuestRequest::Kind::crash);
    CHECK_THAT(request->text, Catch::Matchers::Contains("KVM_RUN") && Catch::Matchers::Contains("rip="));
}

TEST_CASE("a CPU that refuses the guest has not run it", "[machine]") {
    VcpuFixture f{[](kvm_run& run) {
        run.exit_reason = KVM_EXIT_FAIL_ENTRY;
        return 0;
    }};
    f.thread->run();
    f.thread->wait_parked();
    CHECK_FALSE(f.thread->wait_entered());
    CHECK_FALSE(f.thread->ever_entered());
    CHECK(f.requests.take()->kind == vmm::GuestRequest::Kind::crash);
}

TEST_CASE("a vCPU that fails after it ran has run", "[machine]") {
    std::atomic<int> sent = 0;
    VcpuFixture f{[&](kvm_run& run) { return sent++ == 0 ? out(run, 0x20, 1) : EFAULT; }};
    f.thread->run();
    f.thread->wait_parked();
    CHECK(f.thread->ever_entered());
}

TEST_CASE("a vCPU that cannot be told it was paused never enters the guest", "[machine]") {
    VcpuFixture f{spin};
    f.fake.failing[KVM_KVMCLOCK_CTRL] = EIO;
    f.thread->run();
    CHECK_FALSE(f.thread->wait_entered());
    f.thread->wait_parked();
    CHECK_FALSE(f.thread->ever_entered());
}

TEST_CASE("tasks run on the parked thread", "[machine]") {
    VcpuFixture f{spin};
    std::thread::id ran_on;
    f.thread->start_task([&](vmm::Vcpu& vcpu) -> vmm::Result<void> {
        ran_on = std::this_thread::get_id();
        return vcpu.index() == 0 ? vmm::Result<void>{} : vmm::fail(vmm::Code::invalid, "another");
    });
    REQUIRE(f.thread->wait_task());
    CHECK(ran_on != std::this_thread::get_id());
    f.thread->start_task([](vmm::Vcpu&) -> vmm::Result<void> { return vmm::fail(vmm::Code::invalid, "no"); });
    CHECK(f.thread->wait_task().error().text() == "no");
}

TEST_CASE("exits are served while it runs", "[machine]") {
    std::atomic<int> sent = 0;
    VcpuFixture f{[&](kvm_run& run) { return sent < 100 ? (++sent, out(run, 0x20, 1)) : spin(run); }};
    Counter counter;
    REQUIRE(f.ports.insert(0x20, 1, counter));
    f.thread->run();
    CHECK(eventually([&] { return counter.writes == 100; }));
    f.park();
}
