#include "devices/virtio/rng.hpp"
#include "tests/unit/devices/device_state.hpp"
#include "tests/unit/devices/virtio_host.hpp"

using namespace tests::mmio;
using tests::restore;
using tests::save;
using tests::VirtioHost;

namespace {

// An entropy device: the smallest there is.
struct RngHost : VirtioHost {
    RngHost() { make(std::make_unique<devices::virtio::Rng>()); }
};

}  // namespace

TEST_CASE("a driver finds a device of version 2 and its features", "[devices]") {
    RngHost host;
    CHECK(host.read(0x000) == 0x74726976);
    CHECK(host.read(0x004) == 2);
    CHECK(host.read(0x008) == 4);
    CHECK(host.offered() == (VirtioHost::kVersion1 | VirtioHost::kEventIdx | VirtioHost::kIndirect));
    host.write(kDeviceFeaturesSel, 2);
    CHECK(host.read(kDeviceFeatures) == 0);
    CHECK(host.read(kQueueNumMax) == 64);
    host.write(kQueueSel, 1);
    CHECK(host.read(kQueueNumMax) == 0);
    CHECK(host.read(0x0b0) == 0xffff'ffff);  // length of a shared memory region that is not there
    std::array<std::byte, 2> half{};
    host.transport().read(0x000, half);
    CHECK(half[0] == std::byte{0xff});
}

TEST_CASE("features that were not offered are refused, and so is a driver without version 1", "[devices]") {
    RngHost host;
    host.negotiate(VirtioHost::kVersion1 | VirtioHost::kEventIdx);
    CHECK(host.read(kStatus) == 11);
    // Too late: they are agreed on.
    host.write(kDriverFeaturesSel, 0);
    host.write(kDriverFeatures, 0x1234);
    host.write(kStatus, 15);
    CHECK(host.read(kStatus) == 15);
    host.negotiate(VirtioHost::kVersion1 | 1);
    CHECK(host.read(kStatus) == 3);
    host.negotiate(VirtioHost::kEventIdx);
    CHECK(host.read(kStatus) == 3);
    host.negotiate(VirtioHost::kVersion1 | std::uint64_t{1} << 63);
    CHECK(host.read(kStatus) == 3);
}

TEST_CASE("a request is served, and the driver interrupted", "[devices]") {
    RngHost host;
    host.start(VirtioHost::kVersion1, 1);
    const auto head = host.add(0, {{VirtioHost::kData, 64, true}});
    host.kick(0);
    CHECK(host.wait_used(0, 1) == std::vector<tests::UsedElement>{{head, 64}});
    CHECK(host.text(VirtioHost::kData, 64) != std::string(64, '\0'));
    CHECK(host.wait_interrupt());
    CHECK(host.read(kInterruptStatus) == 1);
    host.write(kInterruptAck, 1);
    CHECK(host.read(kInterruptStatus) == 0);
}

TEST_CASE("a device whose driver breaks the rules asks for a reset, and works after it", "[devices]") {
    RngHost host;
    host.start(VirtioHost::kVersion1, 1);
    SECTION("in a ring") {
        host.publish(0, 1000);
    }
    SECTION("twice") {
        host.publish(0, 1000);
        host.kick(0);
        host.sync();
        host.kick(0);
    }
    SECTION("by a queue without a size") {
        host.write(kQueueReady, 0);
        host.write(kQueueNum, 48);  // not a power of two
        host.write(kQueueReady, 1);
    }
    host.kick(0);
    host.sync();
    CHECK(host.read(kStatus) == (15 | 64));
    CHECK(host.read(kInterruptStatus) == 2);
    CHECK(host.interrupts() == 1);
    CHECK(host.broken.starts_with("virtio-rng \"test\": its driver broke a rule: "));

    host.start(VirtioHost::kVersion1, 1);
    CHECK(host.read(kStatus) == 15);
    host.add(0, {{VirtioHost::kData, 64, true}});
    host.kick(0);
    CHECK(host.wait_used(0, 1).size() == 1);
}

TEST_CASE("nothing is served while the machine is paused, and everything after it", "[devices]") {
    RngHost host;
    host.start(VirtioHost::kVersion1, 1);
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    host.add(0, {{VirtioHost::kData, 64, true}});
    host.kick(0);
    host.sync();
    CHECK(host.used_index(0) == 0);
    host.transport().resume();
    CHECK(host.wait_used(0, 1).size() == 1);
}

TEST_CASE("a kick and an interrupt that were in flight are made up for on resume", "[devices]") {
    RngHost source;
    source.start(VirtioHost::kVersion1, 1);
    source.add(0, {{VirtioHost::kData, 16, true}});
    source.kick(0);
    REQUIRE(source.wait_interrupt());
    REQUIRE(source.transport().pause(tests::kPauseLimit));
    // A kick that nobody has seen yet.
    source.add(0, {{VirtioHost::kData + 0x100, 32, true}});

    RngHost target;
    vmm::Bytes memory(VirtioHost::kPages * vmm::kPageSize);
    REQUIRE(source.memory().read(vmm::Gpa{0}, memory));
    REQUIRE(target.memory().write(vmm::Gpa{0}, memory));
    REQUIRE(restore(target.transport(), save(source.transport())));
    target.sync();
    CHECK(target.interrupts() == 0);  // restore raises no line
    CHECK(target.used_index(0) == 1);
    target.transport().resume();
    CHECK(target.wait_interrupt());
    CHECK(target.wait_used(0, 2)[1] == tests::UsedElement{1, 32});
    // What was served at the source is not served again.
    CHECK(target.text(VirtioHost::kData, 16) == source.text(VirtioHost::kData, 16));
    CHECK(target.read(kInterruptStatus) == 1);
}

TEST_CASE("an interrupt that the driver has not acknowledged is raised again, without a request",
          "[devices]") {
    RngHost source;
    source.start(VirtioHost::kVersion1, 1);
    source.add(0, {{VirtioHost::kData, 16, true}});
    source.kick(0);
    source.wait_used(0, 1);
    REQUIRE(source.wait_interrupt());
    REQUIRE(source.transport().pause(tests::kPauseLimit));
    RngHost target;
    vmm::Bytes memory(VirtioHost::kPages * vmm::kPageSize);
    REQUIRE(source.memory().read(vmm::Gpa{0}, memory));
    REQUIRE(target.memory().write(vmm::Gpa{0}, memory));
    REQUIRE(restore(target.transport(), save(source.transport())));
    target.transport().resume();
    CHECK(target.interrupts() == 1);
    // And where it was, when it stays.
    (void)source.interrupts();
    source.transport().resume();
    CHECK(source.interrupts() == 1);
    source.write(kInterruptAck, 1);
    REQUIRE(source.transport().pause(tests::kPauseLimit));
    source.transport().resume();
    CHECK(source.interrupts() == 0);
}

TEST_CASE("what was negotiated holds after a restore", "[devices]") {
    RngHost source;
    source.start(VirtioHost::kVersion1 | VirtioHost::kIndirect | VirtioHost::kEventIdx, 1);
    REQUIRE(source.transport().pause(tests::kPauseLimit));
    RngHost target;
    REQUIRE(restore(target.transport(), save(source.transport())));
    target.transport().resume();
    constexpr std::uint64_t kTable = VirtioHost::kData + 0x1000;
    constexpr std::uint16_t kIsIndirect = 4;
    target.descriptor(kTable, VirtioHost::kData, 32, 2, 0);
    target.descriptor(VirtioHost::table(0), kTable, 16, kIsIndirect, 0);
    target.store(VirtioHost::available(0) + 4 + 2 * VirtioHost::kQueueSize, std::uint16_t{7});  // used_event
    target.publish(0, 0);
    target.kick(0);
    CHECK(target.wait_used(0, 1)[0] == tests::UsedElement{0, 32});
    target.sync();
    CHECK(target.interrupts() == 0);
    CHECK(target.read(kStatus) == 15);
}

TEST_CASE("a state that this device cannot have is refused", "[devices]") {
    RngHost source;
    source.start(VirtioHost::kVersion1, 1);
    devices::virtio::RngState state;
    state.transport.queues.resize(1);
    RngHost target;
    const auto restored = [&] {
        vmm::SnapshotWriter writer;
        writer.put(0, state);
        return restore(target.transport(), writer.finish()).has_value();
    };
    CHECK(restored());
    SECTION("another number of queues") {
        state.transport.queues.resize(2);
    }
    SECTION("a larger queue") {
        state.transport.queues[0].size = 128;
    }
    SECTION("features that it has not") {
        state.transport.status = 15;
        state.transport.driver_features = VirtioHost::kVersion1 | 1;
    }
    CHECK(!restored());
}
