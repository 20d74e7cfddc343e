// Devices that come to rest or do not, and what a guest has to itself: its disks.
#include <catch2/catch.hpp>

#include "tests/unit/machine/machine_fixture.hpp"

using Catch::Matchers::Contains;
using EndReason = vmm::GuestEnd::Reason;
using vmm::Code;
using vmm::RunState;

namespace {

// A machine that counts how often its vCPU begins to run.
struct CountedMachine {
    CountedMachine() { REQUIRE(f.lifecycle->resume()); }
    std::atomic<int> entries = 0;
    MachineFixture f{[this](kvm_run& run) {
        ++entries;
        return spin(run);
    }};
};

// A guest that writes to a port just as it is asked to stop, by which time its device is stuck.
struct StuckLastWords {
    explicit StuckLastWords(std::uint16_t port)
        : f{[this, port](kvm_run& run) {
              if (inside.exchange(true)) {
                  return spin(run);
              }
              (void)spin(run);
              return out(run, port, 3);
          }} {
        REQUIRE(f.lifecycle->resume());
        REQUIRE(eventually([&] { return inside.load(); }));
        f.device->stuck = true;
    }

    std::atomic<bool> inside = false;
    MachineFixture f;
};

// One user's claim on something that has one owner at a time.
class Claim final : public vmm::Exclusive {
  public:
    Claim(const void*& owner, std::string name) : owner_(owner), name_(std::move(name)) {}

    vmm::Result<void> take() override {
        if (owner_ != nullptr && owner_ != this) {
            return vmm::fail(Code::refused, "{} is in use", name_);
        }
        owner_ = this;
        return {};
    }
    vmm::Result<void> begin_flush() override { return {}; }
    vmm::Result<void> wait_flushed(vmm::Duration) override {
        if (stuck) {
            return vmm::fail(Code::io, "{} cannot be flushed", name_);
        }
        return {};
    }
    vmm::Result<void> give() override {
        owner_ = holds() ? nullptr : owner_;
        return {};
    }
    bool holds() const { return owner_ == this; }

    bool stuck = false;

  private:
    const void*& owner_;
    const std::string name_;
};

// A guest with a disk that somebody else may have too.
struct DiskMachine {
    DiskMachine() { f.machine->add_exclusive(ours); }

    const void* owner = nullptr;
    Claim ours{owner, "the disk"};
    Claim theirs{owner, "the disk"};
    MachineFixture f{spin};
};

}  // namespace

TEST_CASE("what a pause drains is told to the handover, and is not drained twice", "[machine]") {
    MachineFixture f{spin};
    REQUIRE(f.lifecycle->resume());
    f.device->in_flight = 3;
    const auto drain = f.lifecycle->begin_handover(kRestLimit);
    REQUIRE(drain);
    CHECK(drain->requests == 3);
    CHECK(drain->time > vmm::Duration::zero());
    REQUIRE(f.lifecycle->cancel_handover());
    REQUIRE(f.lifecycle->pause());
    const auto at_rest = f.lifecycle->begin_handover(kRestLimit);
    REQUIRE(at_rest);
    CHECK(at_rest->requests == 0);
    CHECK(at_rest->time == vmm::Duration::zero());
    f.lifecycle->finish_handover();
}

TEST_CASE("a guest with a device that does not come to rest goes on, and can end", "[machine]") {
    CountedMachine machine;
    MachineFixture& f = machine.f;
    f.device->stuck = true;
    const int entries = machine.entries;
    SECTION("pause") {
        CHECK(f.lifecycle->pause().error().text() == "fake device: stuck");
    }
    SECTION("a handover") {
        const auto begun = f.lifecycle->begin_handover(kRestLimit);
        REQUIRE(!begun);
        CHECK(begun.error().code() == Code::timeout);
        CHECK(begun.error().text() == "fake device: stuck");
    }
    SECTION("a look at its vCPUs") {
        CHECK(f.lifecycle->cpu_needs());  // which devices do not matter to
    }
    CHECK(eventually([&] { return machine.entries > entries; }));
    CHECK(f.lifecycle->state() == RunState::running);
    f.device->stuck = false;
    CHECK(f.lifecycle->pause());
    CHECK(f.lifecycle->state() == RunState::paused);
    REQUIRE(f.lifecycle->resume());
    f.device->stuck = true;
    f.lifecycle->stop();
    CHECK(f.lifecycle->wait_end().reason == EndReason::stopped);
}

TEST_CASE("devices that had come to rest before one that does not are resumed", "[machine]") {
    MachineFixture f{spin};
    auto second = std::make_unique<FakeDevice>(f.machine->control());
    FakeDevice* stuck = second.get();
    stuck->stuck = true;
    f.machine->add_device(std::move(second));
    REQUIRE(f.lifecycle->resume());
    CHECK(!f.lifecycle->pause());
    CHECK(f.device->pauses == 1);
    CHECK(f.device->resumes == 2);
    CHECK(stuck->resumes == 1);
}

TEST_CASE("what a guest asked for in its last moment does not wait for a device that is stuck", "[machine]") {
    SECTION("its end") {
        StuckLastWords words{0x12};
        CHECK(!words.f.lifecycle->pause());
        const vmm::GuestEnd end = words.f.lifecycle->wait_end();
        CHECK(end.reason == EndReason::exit_port);
        CHECK(end.value == 3);
    }
    SECTION("a reset, which such a device cannot have") {
        StuckLastWords words{0x11};
        CHECK(!words.f.lifecycle->pause());
        const vmm::GuestEnd end = words.f.lifecycle->wait_end();
        CHECK(end.reason == EndReason::crash);
        CHECK_THAT(end.text, Contains("cannot be reset") && Contains("stuck"));
    }
}

TEST_CASE("a guest runs only with its disks, and takes them when they are free", "[machine]") {
    DiskMachine machine;
    REQUIRE(machine.theirs.take());
    const auto resumed = machine.f.lifecycle->resume();
    REQUIRE(!resumed);
    CHECK(resumed.error().code() == Code::refused);
    CHECK(resumed.error().text() == "the disk is in use");
    CHECK(machine.f.lifecycle->state() == RunState::paused);
    CHECK_FALSE(machine.f.lifecycle->entered());
    REQUIRE(machine.theirs.give());
    REQUIRE(machine.f.lifecycle->resume());
    CHECK(machine.f.lifecycle->state() == RunState::running);
    CHECK(machine.ours.holds());
    REQUIRE(machine.f.lifecycle->pause());
    CHECK(machine.ours.holds());  // a pause gives nothing away
}

TEST_CASE("a handover that is undone takes the disks back, of a paused guest too", "[machine]") {
    DiskMachine machine;
    vmm::Lifecycle& lifecycle = *machine.f.lifecycle;
    const bool paused = GENERATE(false, true);
    REQUIRE(lifecycle.resume());
    if (paused) {
        REQUIRE(lifecycle.pause());
    }
    REQUIRE(lifecycle.begin_handover(kRestLimit));
    CHECK(machine.ours.holds());
    REQUIRE(lifecycle.give_exclusives(kRestLimit));
    CHECK_FALSE(machine.ours.holds());
    REQUIRE(lifecycle.cancel_handover());
    CHECK(machine.ours.holds());
    CHECK(lifecycle.state() == (paused ? RunState::paused : RunState::running));
}

TEST_CASE("a handover that is undone while another has the disk leaves the guest paused", "[machine]") {
    DiskMachine machine;
    vmm::Lifecycle& lifecycle = *machine.f.lifecycle;
    REQUIRE(lifecycle.resume());
    REQUIRE(lifecycle.begin_handover(kRestLimit));
    REQUIRE(lifecycle.give_exclusives(kRestLimit));
    REQUIRE(machine.theirs.take());
    CHECK(lifecycle.cancel_handover().error().text() == "the disk is in use");
    CHECK(lifecycle.state() == RunState::paused);
    CHECK(!lifecycle.resume());
    CHECK(lifecycle.state() == RunState::paused);
    REQUIRE(machine.theirs.give());
    REQUIRE(lifecycle.resume());
    CHECK(lifecycle.state() == RunState::running);
    CHECK(machine.ours.holds());
}

TEST_CASE("all disks are taken that can be had, and one that cannot be given away is kept", "[machine]") {
    DiskMachine machine;
    vmm::Lifecycle& lifecycle = *machine.f.lifecycle;
    const void* owner = nullptr;
    Claim second{owner, "the second disk"};
    machine.f.machine->add_exclusive(second);
    REQUIRE(machine.theirs.take());
    CHECK(lifecycle.take_exclusives().error().text() == "the disk is in use");
    CHECK(second.holds());
    second.stuck = true;
    CHECK(lifecycle.give_exclusives(kRestLimit).error().text() == "the second disk cannot be flushed");
    CHECK(second.holds());
}

TEST_CASE("a destination does not enter a guest whose disk another has", "[machine]") {
    MachineFixture source{spin};
    REQUIRE(source.lifecycle->resume());
    REQUIRE(source.lifecycle->begin_handover(kRestLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    DiskMachine destination;
    REQUIRE(destination.theirs.take());
    REQUIRE(destination.f.lifecycle->restore(*snapshot));
    CHECK(destination.f.lifecycle->start().error().code() == Code::refused);
    CHECK_FALSE(destination.f.lifecycle->entered());
    REQUIRE(source.lifecycle->cancel_handover());
    CHECK(source.lifecycle->state() == RunState::running);
}
