#include "devices/virtio/console.hpp"

#include "tests/unit/devices/virtio_host.hpp"

using tests::VirtioHost;

namespace {

constexpr std::uint64_t kBuffer = VirtioHost::kData;

struct ConsoleHost : VirtioHost {
    ConsoleHost() {
        make(std::make_unique<devices::virtio::Console>(std::make_unique<tests::FakeBackend>(wire)));
    }

    tests::FakeWire wire;
};

}  // namespace

TEST_CASE("a console prints what the host takes, and keeps the rest in its queue", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1 | VirtioHost::kEventIdx, 2);
    host.wire.listen();
    host.set_text(kBuffer, "first second");
    host.add(1, {{kBuffer, 6}});
    host.add(1, {{kBuffer + 6, 3}, {kBuffer + 9, 3}});
    host.kick(1);
    host.sync();
    CHECK(host.wire.wakes > 0);
    CHECK(host.wire.take(8) == "first se");
    CHECK(host.wait_used(1, 1).size() == 1);
    CHECK(host.used_index(1) == 1);
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    CHECK(host.wire.take() == "");
    host.transport().resume();
    CHECK(host.wire.take() == "cond");
    CHECK(host.wait_used(1, 1).size() == 1);
}

TEST_CASE("what nobody listens to is dropped, and the guest never waits", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1, 2);
    host.add(1, {{kBuffer, 6}});
    host.kick(1);
    CHECK(host.wait_used(1, 1).size() == 1);
    host.wire.listen();
    host.add(1, {{kBuffer, 6}});
    host.kick(1);
    host.sync();
    CHECK(host.used_index(1) == 1);
    host.wire.leave();
    CHECK(host.wait_used(1, 1).size() == 1);
}

TEST_CASE("input goes into the buffers that the guest has given", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1, 2);
    CHECK(host.wire.type("nobody") == 0);
    host.add(0, {{kBuffer, 0, true}});
    host.add(0, {{kBuffer, 4, true}});
    host.add(0, {{kBuffer + 16, 4, true}});
    CHECK(host.wire.type("typing") == 6);
    CHECK(host.wait_used(0, 3)[2] == tests::UsedElement{2, 2});
    CHECK(host.text(kBuffer, 4) + host.text(kBuffer + 16, 2) == "typing");
}
