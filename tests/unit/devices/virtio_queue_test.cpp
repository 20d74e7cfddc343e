#include "devices/virtio/virtqueue.hpp"

#include "tests/unit/devices/virtio_host.hpp"

using devices::virtio::Chain;
using devices::virtio::VirtQueue;
using tests::VirtioHost;

namespace {

constexpr std::uint16_t kNext = 1;
constexpr std::uint16_t kWrite = 2;
constexpr std::uint16_t kIndirect = 4;

// A queue without a device: the test is both sides.
struct Ring {
    explicit Ring(std::uint64_t features = 0) {
        devices::virtio::QueueState state;
        state.size = VirtioHost::kQueueSize;
        state.ready = true;
        state.descriptors = VirtioHost::table(0);
        state.available = VirtioHost::available(0);
        state.used = VirtioHost::used(0);
        queue.set_state(state);
        queue.set_features(features);
    }
    vmm::Result<std::optional<Chain>> pop() { return queue.pop(); }
    bool fails() {
        const auto popped = queue.pop();
        return !popped && popped.error().code() == vmm::Code::invalid;
    }

    VirtioHost host;  // its memory only
    VirtQueue queue{host.memory(), VirtioHost::kQueueSize};
};

}  // namespace

TEST_CASE("a chain is read in order, and given back", "[devices]") {
    Ring ring;
    ring.host.set_text(0x80000, "head");
    ring.host.set_text(0x90000, "body");
    CHECK(!ring.pop()->has_value());
    const auto head = ring.host.add(0, {{0x80000, 4}, {0x90000, 4}, {0xa0000, 8, true}, {0xb0000, 1, true}});
    const auto chain = *ring.pop();
    REQUIRE(chain);
    CHECK(chain->head == head);
    CHECK(chain->readable.size() == 8);
    CHECK(chain->writable.size() == 9);
    std::array<std::byte, 16> bytes{};
    CHECK(chain->readable.read(ring.host.memory(), 2, bytes) == 6);
    CHECK(std::string_view{reinterpret_cast<const char*>(bytes.data()), 6} == "adbody");
    CHECK(chain->writable.write(ring.host.memory(), 6, bytes) == 3);
    CHECK(ring.host.text(0xa0006, 2) == "ad");
    CHECK(ring.host.text(0xb0000, 1) == "b");
    CHECK(chain->readable.read(ring.host.memory(), 8, bytes) == 0);
    CHECK(!ring.pop()->has_value());

    REQUIRE(ring.queue.push(chain->head, 9));
    CHECK(ring.host.wait_used(0, 1) == std::vector<tests::UsedElement>{{head, 9}});
}

TEST_CASE("an indirect table is a chain of its own, where it was negotiated", "[devices]") {
    Ring ring{VirtioHost::kIndirect};
    const std::uint64_t table = 0xc0000;
    ring.host.descriptor(table, 0x80000, 16, kNext, 2);
    ring.host.descriptor(table + 32, 0x81000, 32, kWrite, 0);
    ring.host.descriptor(VirtioHost::table(0), table, 48, kIndirect, 0);
    ring.host.publish(0, 0);
    const auto chain = *ring.pop();
    REQUIRE(chain);
    CHECK(chain->readable.size() == 16);
    CHECK(chain->writable.size() == 32);

    ring.host.publish(0, 0);
    ring.queue.set_features(0);
    CHECK(ring.fails());
}

TEST_CASE("a driver that breaks the rules of a ring is noticed", "[devices]") {
    Ring ring{VirtioHost::kIndirect};
    const std::uint64_t table = VirtioHost::table(0);
    auto& host = ring.host;
    SECTION("more waiting than there are entries") {
        for (int i = 0; i <= VirtioHost::kQueueSize; ++i) {
            host.publish(0, 0);
        }
    }
    SECTION("a head outside the table") {
        host.publish(0, VirtioHost::kQueueSize);
    }
    SECTION("a next outside the table") {
        host.descriptor(table, 0x80000, 4, kNext, VirtioHost::kQueueSize);
        host.publish(0, 0);
    }
    SECTION("a chain in a circle") {
        host.descriptor(table, 0x80000, 4, kNext, 1);
        host.descriptor(table + 16, 0x80000, 4, kNext, 0);
        host.publish(0, 0);
    }
    SECTION("readable behind writable") {
        host.add(0, {{0x80000, 4, true}, {0x80000, 4, false}});
    }
    SECTION("memory that is not RAM") {
        host.add(0, {{VirtioHost::kPages * vmm::kPageSize - 2, 4}});
    }
    SECTION("memory that wraps") {
        host.add(0, {{~std::uint64_t{0} - 1, 4}});
    }
    SECTION("an indirect table of no length") {
        host.descriptor(table, 0xc0000, 0, kIndirect, 0);
        host.publish(0, 0);
    }
    SECTION("an indirect table of half a descriptor") {
        host.descriptor(table, 0xc0000, 24, kIndirect, 0);
        host.publish(0, 0);
    }
    SECTION("an indirect table with a next") {
        host.descriptor(table, 0xc0000, 16, kIndirect | kNext, 1);
        host.publish(0, 0);
    }
    SECTION("an indirect table in an indirect table") {
        host.descriptor(0xc0000, 0xc1000, 16, kIndirect, 0);
        host.descriptor(table, 0xc0000, 16, kIndirect, 0);
        host.publish(0, 0);
    }
    SECTION("an indirect table outside RAM") {
        host.descriptor(table, VirtioHost::kPages * vmm::kPageSize, 16, kIndirect, 0);
        host.publish(0, 0);
    }
    SECTION("rings outside RAM") {
        ring.queue.state().available = VirtioHost::kPages * vmm::kPageSize;
    }
    SECTION("rings that are not aligned") {
        ring.queue.state().available += 1;
    }
    CHECK(ring.fails());
}

TEST_CASE("an interrupt comes when the driver asked for it", "[devices]") {
    const bool event_idx = GENERATE(false, true);
    Ring ring{event_idx ? VirtioHost::kEventIdx : 0};
    const std::uint64_t flags = VirtioHost::available(0);
    const std::uint64_t used_event = flags + 4 + 2 * VirtioHost::kQueueSize;
    CHECK(!*ring.queue.wants_interrupt());  // nothing was pushed
    REQUIRE(ring.queue.push(0, 0));
    CHECK(*ring.queue.wants_interrupt());
    CHECK(!*ring.queue.wants_interrupt());
    ring.host.store(flags, std::uint16_t{1});
    ring.host.store(used_event, std::uint16_t{2});  // when the third is used
    REQUIRE(ring.queue.push(0, 0));
    CHECK(!*ring.queue.wants_interrupt());
    REQUIRE(ring.queue.push(0, 0));
    REQUIRE(ring.queue.push(0, 0));
    CHECK(*ring.queue.wants_interrupt() == event_idx);
}

TEST_CASE("a driver is asked to notify, and a request that came before is seen", "[devices]") {
    Ring ring{VirtioHost::kEventIdx};
    ring.host.add(0, {{0x80000, 4}});
    REQUIRE(*ring.pop());
    CHECK(!*ring.queue.ask_for_notification());
    const std::uint64_t avail_event = VirtioHost::used(0) + 4 + 8 * VirtioHost::kQueueSize;
    CHECK(ring.host.load<std::uint16_t>(avail_event) == 1);
    ring.host.add(0, {{0x80000, 4}});
    CHECK(*ring.queue.ask_for_notification());
}

TEST_CASE("indices of a ring wrap", "[devices]") {
    Ring ring{VirtioHost::kEventIdx};
    ring.queue.state().next_available = ring.queue.state().next_used = 0xfffe;
    ring.queue.set_state(ring.queue.state());
    for (std::uint16_t index = 0xffff; index != 3; ++index) {
        ring.host.descriptor(VirtioHost::table(0), 0x80000, 4, 0, 0);
        ring.host.store(VirtioHost::available(0) + 4 + 2 * ((index - 1) % VirtioHost::kQueueSize),
                        std::uint16_t{0});
        REQUIRE(ring.host.memory().store_ordered(vmm::Gpa{VirtioHost::available(0) + 2}, index));
        REQUIRE(*ring.pop());
        ring.host.store(VirtioHost::available(0) + 4 + 2 * VirtioHost::kQueueSize,
                        static_cast<std::uint16_t>(index - 1));
        REQUIRE(ring.queue.push(0, 0));
        CHECK(*ring.queue.wants_interrupt());
    }
}

TEST_CASE("what a device writes is dirty once it has landed", "[devices]") {
    Ring ring;
    vmm::DeviceWriteTracker& writes = ring.host.memory().device_writes();
    ring.host.add(0, {{0x80ffe, 4, true}});
    const auto chain = *ring.pop();
    REQUIRE(writes.start());
    vmm::Bitmap dirty{VirtioHost::kPages};
    REQUIRE(writes.collect(dirty));
    CHECK(dirty.count() == 0);
    chain->writable.write(ring.host.memory(), 0, std::array<std::byte, 4>{});
    REQUIRE(ring.queue.push(chain->head, 4));
    REQUIRE(writes.collect(dirty));
    CHECK(dirty.test(0x80));
    CHECK(dirty.test(0x81));
    CHECK(dirty.test(VirtioHost::used(0) >> vmm::kPageShift));
    CHECK(dirty.count() == 3);
}
