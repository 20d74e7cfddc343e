#include "vmm/machine/lifecycle.hpp"

#include <poll.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <future>

#include "tests/unit/machine/machine_fixture.hpp"

using Catch::Matchers::Contains;
using EndReason = vmm::GuestEnd::Reason;
using vmm::RunState;

namespace {

// A guest that writes to a port once and then loops.
std::function<int(kvm_run&)> writes_once(std::uint16_t port, std::uint8_t value) {
    return [port, value, done = std::make_shared<std::atomic<bool>>(false)](kvm_run& run) {
        return done->exchange(true) ? spin(run) : out(run, port, value);
    };
}

bool readable(int fd) {
    pollfd poll{fd, POLLIN, 0};
    return ::poll(&poll, 1, 0) == 1;
}

template <typename T>
bool is_waiting(std::future<T>& future) {
    return future.wait_for(std::chrono::milliseconds{30}) == std::future_status::timeout;
}

}  // namespace

TEST_CASE("pause and resume do nothing when it is already so; devices follow", "[machine]") {
    MachineFixture f{spin, 2};
    REQUIRE(f.lifecycle->boot());
    CHECK(f.lifecycle->state() == RunState::created);
    CHECK_FALSE(f.lifecycle->entered());
    REQUIRE(f.lifecycle->resume());
    REQUIRE(f.lifecycle->resume());
    CHECK(f.lifecycle->state() == RunState::running);
    CHECK(f.lifecycle->entered());
    CHECK(f.device->resumes == 1);
    REQUIRE(f.lifecycle->pause());
    REQUIRE(f.lifecycle->pause());
    CHECK(f.lifecycle->state() == RunState::paused);
    CHECK(f.device->pauses == 1);
    REQUIRE(f.lifecycle->resume());
    CHECK(f.lifecycle->state() == RunState::running);
    CHECK_FALSE(f.lifecycle->end());
}

TEST_CASE("boot places the image and sets the entry of vCPU 0", "[machine]") {
    MachineFixture f{spin};
    REQUIRE(f.lifecycle->boot());
    CHECK(f.machine->memory().load<std::uint8_t>(vmm::Gpa{0x7c0f}).value() == 0x90);
    kvm_regs regs{};
    REQUIRE(f.machine->vcpus()[0]->fd().call_with(KVM_REQUEST(KVM_GET_REGS), regs));
    CHECK(regs.rip == 0x7c00);
}

TEST_CASE("the guest ends itself", "[machine]") {
    SECTION("exit port") {
        MachineFixture f{writes_once(0x12, 16)};
        REQUIRE(f.lifecycle->resume());
        const vmm::GuestEnd end = f.lifecycle->wait_end();
        CHECK(end.reason == EndReason::exit_port);
        CHECK(end.value == 16);
        CHECK(f.lifecycle->state() == RunState::ended);
        CHECK(readable(f.lifecycle->end_fd()));
        CHECK(f.lifecycle->pause().error().code() == vmm::Code::guest_ended);
        CHECK(f.lifecycle->resume().error().code() == vmm::Code::guest_ended);
        CHECK(f.lifecycle->begin_handover(kRestLimit).error().code() == vmm::Code::guest_ended);
        f.lifecycle->stop();
        CHECK(f.lifecycle->end()->reason == EndReason::exit_port);
    }
    SECTION("power off") {
        MachineFixture f{writes_once(0x13, 0)};
        REQUIRE(f.lifecycle->resume());
        CHECK(f.lifecycle->wait_end().reason == EndReason::power_off);
    }
    SECTION("KVM cannot go on") {
        MachineFixture f{[](kvm_run& run) {
            run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
            return 0;
        }};
        REQUIRE(f.lifecycle->resume());
        const vmm::GuestEnd end = f.lifecycle->wait_end();
        CHECK(end.reason == EndReason::crash);
        CHECK_THAT(end.text, Contains("internal error") && Contains("rip="));
    }
}

TEST_CASE("a vCPU that asked for the end runs no further instruction", "[machine]") {
    std::atomic<int> runs = 0;
    MachineFixture f{[&](kvm_run& run) {
        ++runs;
        return out(run, 0x12, 1);
    }};
    REQUIRE(f.lifecycle->resume());
    (void)f.lifecycle->wait_end();
    CHECK(runs == 1);
}

TEST_CASE("stop ends the guest once", "[machine]") {
    MachineFixture f{spin, 2};
    REQUIRE(f.lifecycle->resume());
    f.lifecycle->stop();
    f.lifecycle->stop();
    CHECK(f.lifecycle->wait_end().reason == EndReason::stopped);
}

TEST_CASE("a reset starts the guest again from its boot image, without touching its clocks", "[machine]") {
    MachineFixture f{writes_once(0x11, 0)};
    f.device->value = 9;
    (void)f.fake.take_calls();
    REQUIRE(f.lifecycle->resume());
    REQUIRE(eventually([&] { return f.lifecycle->resets() == 1; }));
    REQUIRE(f.lifecycle->pause());
    CHECK(f.device->value == 0);
    CHECK(f.machine->memory().load<std::uint8_t>(vmm::Gpa{0x7c00}).value() == 0x90);
    const auto calls = f.fake.take_calls();
    CHECK(std::count(calls.begin(), calls.end(), "SET_LAPIC") == 1);
    CHECK(std::count(calls.begin(), calls.end(), "SET_PIT2") == 1);
    CHECK(std::count(calls.begin(), calls.end(), "SET_CLOCK") == 0);
    CHECK(std::count(calls.begin(), calls.end(), "SET_DEVICE_ATTR") == 0);
}

TEST_CASE("a reset during a migration's copy is seen by the trackers", "[machine]") {
    MachineFixture f{writes_once(0x11, 0)};
    REQUIRE(f.machine->tracker().start());
    REQUIRE(f.lifecycle->resume());
    REQUIRE(eventually([&] { return f.lifecycle->resets() == 1; }));
    REQUIRE(f.machine->tracker().rearm({0, 256}));  // forget what counts as dirty from the start
    REQUIRE(f.lifecycle->pause());
    vmm::Bitmap dirty{f.machine->memory().page_limit()};
    REQUIRE(f.machine->tracker().collect(dirty));
    CHECK(dirty.test(7));
}

TEST_CASE("commands of users wait for the end of a handover", "[machine]") {
    MachineFixture f{spin};
    REQUIRE(f.lifecycle->resume());
    REQUIRE(f.lifecycle->begin_handover(kRestLimit));
    auto pause = std::async(std::launch::async, [&] { return f.lifecycle->pause(); });
    CHECK(is_waiting(pause));
    REQUIRE(f.lifecycle->cancel_handover());
    CHECK(pause.get());
    CHECK(f.lifecycle->state() == RunState::paused);

    REQUIRE(f.lifecycle->begin_handover(kRestLimit));
    auto resume = std::async(std::launch::async, [&] { return f.lifecycle->resume(); });
    CHECK(is_waiting(resume));
    f.lifecycle->finish_handover();
    CHECK(resume.get().error().code() == vmm::Code::guest_ended);
    CHECK(f.lifecycle->wait_end().reason == EndReason::handed_over);
}

TEST_CASE("a cancelled handover leaves the run state of before", "[machine]") {
    MachineFixture f{spin};
    REQUIRE(f.lifecycle->resume());
    REQUIRE(f.lifecycle->begin_handover(kRestLimit));
    REQUIRE(f.lifecycle->save());
    REQUIRE(f.lifecycle->cancel_handover());
    CHECK(f.lifecycle->state() == RunState::running);
    CHECK(f.device->resumes == 2);
    REQUIRE(f.lifecycle->pause());
    REQUIRE(f.lifecycle->begin_handover(kRestLimit));
    REQUIRE(f.lifecycle->cancel_handover());
    CHECK(f.lifecycle->state() == RunState::paused);
    CHECK(f.device->resumes == 2);
}

namespace {

// A guest whose last exit comes just as it is asked to stop.
struct LastWords {
    explicit LastWords(std::uint16_t port)
        : machine([this, port](kvm_run& run) {
              if (inside.exchange(true)) {
                  return spin(run);
              }
              (void)spin(run);
              return out(run, port, 3);
          }) {
        REQUIRE(machine.lifecycle->resume());
        REQUIRE(eventually([&] { return inside.load(); }));
    }
    std::atomic<bool> inside = false;
    MachineFixture machine;
};

}  // namespace

TEST_CASE("a guest that ends at the very pause ends the handover", "[machine]") {
    LastWords words{0x12};
    MachineFixture& f = words.machine;
    CHECK(f.lifecycle->begin_handover(kRestLimit).error().code() == vmm::Code::guest_ended);
    CHECK(f.lifecycle->end()->reason == EndReason::exit_port);
    f.lifecycle->stop();  // the turn was given back
}

TEST_CASE("a reset at the very pause travels and is carried out by whoever resumes", "[machine]") {
    LastWords words{0x11};
    MachineFixture& source = words.machine;
    REQUIRE(source.lifecycle->begin_handover(kRestLimit));
    CHECK(source.lifecycle->resets() == 0);
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);

    MachineFixture destination{spin};
    REQUIRE(destination.lifecycle->restore(*snapshot));
    REQUIRE(destination.lifecycle->start());
    CHECK(destination.lifecycle->resets() == 1);
    CHECK(destination.lifecycle->state() == RunState::running);

    REQUIRE(source.lifecycle->cancel_handover());
    CHECK(source.lifecycle->resets() == 1);
    CHECK(source.lifecycle->state() == RunState::running);
}

TEST_CASE("a running guest arrives running with a stamp, a paused one paused", "[machine]") {
    MachineFixture source{spin, 2};
    MachineFixture destination{spin, 2};
    source.device->value = 42;
    const bool paused = GENERATE(false, true);
    REQUIRE(source.lifecycle->resume());
    if (paused) {
        REQUIRE(source.lifecycle->pause());
    }
    REQUIRE(source.lifecycle->begin_handover(kRestLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    const vmm::TimePoint before = vmm::real_clock().now();
    REQUIRE(destination.lifecycle->rehearse());
    REQUIRE(destination.lifecycle->restore(*snapshot));
    CHECK_FALSE(destination.lifecycle->entered());
    const auto started = destination.lifecycle->start();
    REQUIRE(started);
    CHECK(destination.device->value == 42);
    CHECK(started->has_value() == !paused);
    CHECK(destination.lifecycle->entered() == !paused);
    CHECK(destination.lifecycle->state() == (paused ? RunState::paused : RunState::running));
    if (!paused) {
        CHECK(**started >= before);
    }
    source.lifecycle->finish_handover();
}

TEST_CASE("a destination that cannot start knows whether a vCPU ever entered", "[machine]") {
    MachineFixture source{spin};
    REQUIRE(source.lifecycle->resume());
    REQUIRE(source.lifecycle->begin_handover(kRestLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    SECTION("no KVM_RUN was called") {
        MachineFixture destination{spin};
        REQUIRE(destination.lifecycle->restore(*snapshot));
        destination.fake.failing[KVM_KVMCLOCK_CTRL] = EIO;
        CHECK_FALSE(destination.lifecycle->start());
        CHECK_FALSE(destination.lifecycle->entered());
    }
    SECTION("KVM_RUN failed") {
        MachineFixture destination{[](kvm_run&) { return EFAULT; }};
        REQUIRE(destination.lifecycle->restore(*snapshot));
        (void)destination.lifecycle->start();  // it may not have failed yet
        CHECK(destination.lifecycle->wait_end().reason == EndReason::crash);
        CHECK_FALSE(destination.lifecycle->entered());
    }
    SECTION("KVM_RUN failed later") {
        MachineFixture destination{[runs = std::make_shared<std::atomic<int>>(0)](kvm_run& run) {
            return (*runs)++ == 0 ? out(run, 0x10, 1) : EFAULT;
        }};
        REQUIRE(destination.lifecycle->restore(*snapshot));
        (void)destination.lifecycle->start();
        CHECK(destination.lifecycle->wait_end().reason == EndReason::crash);
        CHECK(destination.lifecycle->entered());
    }
}

TEST_CASE("a reset after a move leaves the MSRs that describe the source's CPU", "[machine]") {
    MachineFixture source{spin, 1, {0x10a}};
    source.fake.msrs[0x10a] = 5;
    REQUIRE(source.lifecycle->begin_handover(kRestLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    MachineFixture destination{writes_once(0x11, 0), 1, {0x10a}};
    REQUIRE(destination.lifecycle->restore(*snapshot));
    CHECK(destination.fake.msrs[0x10a] == 5);
    destination.fake.read_only_msrs.insert(0x10a);  // once it has run
    REQUIRE(destination.lifecycle->resume());
    REQUIRE(eventually([&] { return destination.lifecycle->resets() == 1 || destination.lifecycle->end(); }));
    CHECK_FALSE(destination.lifecycle->end());
    CHECK(destination.fake.msrs[0x10a] == 5);
}

TEST_CASE("interrupt controllers are saved before the vCPUs", "[machine]") {
    MachineFixture f{spin};
    REQUIRE(f.lifecycle->begin_handover(kRestLimit));
    (void)f.fake.take_calls();
    REQUIRE(f.lifecycle->save());
    const auto calls = f.fake.take_calls();
    CHECK(std::find(calls.begin(), calls.end(), "GET_PIT2") <
          std::find(calls.begin(), calls.end(), "GET_LAPIC"));
    REQUIRE(f.lifecycle->cancel_handover());
}

TEST_CASE("a snapshot that does not fit the machine is refused before KVM is touched", "[machine]") {
    MachineFixture source{spin, 2};
    REQUIRE(source.lifecycle->begin_handover(kRestLimit));
    auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    MachineFixture destination{spin, 1};
    (void)destination.fake.take_calls();
    const auto restored = destination.lifecycle->restore(*snapshot);
    REQUIRE_FALSE(restored);
    CHECK_THAT(restored.error().text(), Contains("kvm-vcpu[1]"));
    CHECK(destination.fake.take_calls().empty());
    snapshot->pop_back();
    CHECK_FALSE(destination.lifecycle->restore(*snapshot));
}

TEST_CASE("what the guest needs is asked of a running machine, which goes on", "[machine]") {
    MachineFixture f{spin, 2};
    f.fake.msrs[0x174] = 5;
    REQUIRE(f.lifecycle->resume());
    const auto needs = f.lifecycle->cpu_needs();
    REQUIRE(needs);
    CHECK(needs->msrs == std::vector<std::uint32_t>{0x174});
    CHECK(needs->vcpus == 2);
    CHECK(needs->tsc_khz == 2'000'000);
    CHECK(needs->cpuid == f.machine->config().cpuid);
    CHECK(f.lifecycle->state() == RunState::running);
}

TEST_CASE("a machine is refused with the reason", "[machine]") {
    FakeKvm fake;
    const auto kvm = vmm::Kvm::open(fake);
    vmm::MachineConfig config;
    config.ram_bytes = 1 << 20;
    config.vcpus = 9;
    CHECK_THAT(vmm::Machine::create(*kvm, config).error().text(), Contains("9 vCPUs") && Contains("8"));
    config.vcpus = 1;
    config.ram_bytes = 1000;
    CHECK_THAT(vmm::Machine::create(*kvm, config).error().text(), Contains("4096"));
}
