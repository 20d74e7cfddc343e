#include "devices/virtio/console.hpp"

#include <future>

#include "tests/unit/devices/virtio_host.hpp"

using tests::VirtioHost;

namespace {

constexpr std::uint64_t kConsoleBuffer = VirtioHost::kData;

struct ConsoleHost : VirtioHost {
    ConsoleHost() {
        make(std::make_unique<devices::virtio::Console>(std::make_unique<tests::FakeBackend>(wire)));
    }

    tests::FakeWire wire;
};

}  // namespace

TEST_CASE("a console prints what the host takes, and keeps the rest", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1 | VirtioHost::kEventIdx, 2);
    host.wire.listen();
    host.set_text(kConsoleBuffer, "first second");
    host.add(1, {{kConsoleBuffer, 6}});
    host.add(1, {{kConsoleBuffer + 6, 3}, {kConsoleBuffer + 9, 3}});
    host.add(1, {});
    host.kick(1);
    CHECK(host.wait_used(1, 2).size() == 2);
    host.sync();
    CHECK(host.wire.wakes > 0);
    CHECK(host.wire.take(8) == "first se");
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    CHECK(host.wire.take() == "");
    host.transport().resume();
    CHECK(host.wire.take() == "cond");
}

TEST_CASE("a guest never waits for whoever listens to its console; the newest output is kept", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1, 2);
    const bool listens = GENERATE(false, true);
    if (listens) {
        host.wire.listen();
    }
    for (unsigned i = 0; i < 5; ++i) {
        host.set_text(kConsoleBuffer, std::string(16 << 10, static_cast<char>('a' + i)));
        host.add(1, {{kConsoleBuffer, 16 << 10}});
        host.kick(1);
        CHECK(host.wait_used(1, 1).size() == 1);
    }
    host.wire.listen();
    const std::string kept = host.wire.take();
    CHECK(kept.size() == 64 << 10);
    CHECK(kept.front() == 'b');
    CHECK(kept.back() == 'e');
}

TEST_CASE("a chain that names all memory a thousand times is as much work as one", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1 | VirtioHost::kIndirect, 2);
    constexpr std::uint64_t kTable = kConsoleBuffer + 0x1000;
    constexpr std::uint16_t kEntries = 512;
    for (std::uint16_t i = 0; i < kEntries; ++i) {
        host.descriptor(kTable + 16 * i, 0, VirtioHost::kPages * vmm::kPageSize, 1,
                        static_cast<std::uint16_t>(i + 1));
    }
    host.descriptor(kTable + 16 * kEntries, kConsoleBuffer, 3, 0, 0);
    host.descriptor(VirtioHost::table(1), kTable, 16 * (kEntries + 1), 4, 0);
    host.set_text(kConsoleBuffer, "end");
    host.publish(1, 0);
    host.kick(1);
    host.wait_used(1, 1);
    host.wire.listen();
    const std::string kept = host.wire.take();
    CHECK(kept.size() == 64 << 10);
    CHECK(kept.substr(kept.size() - 3) == "end");
}

TEST_CASE("nothing is kept where nobody can ever listen", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1, 2);
    host.add(1, {{kConsoleBuffer, 6}});
    host.kick(1);
    host.wait_used(1, 1);
    host.wire.set_listener(devices::SerialWire::Listener::none);
    host.add(1, {{kConsoleBuffer, 6}});
    host.kick(1);
    host.wait_used(1, 1);
    host.wire.listen();
    CHECK(host.wire.take() == "");
}

TEST_CASE("at the end of a guest its last output is delivered, although it is paused", "[devices]") {
    tests::FakeWire wire;
    VirtioHost host;
    auto console = std::make_unique<devices::virtio::Console>(std::make_unique<tests::FakeBackend>(wire));
    devices::virtio::Console& device = *console;
    host.make(std::move(console));
    host.start(VirtioHost::kVersion1, 2);
    wire.listen();
    host.set_text(kConsoleBuffer, "last");
    host.add(1, {{kConsoleBuffer, 4}});
    host.kick(1);
    host.wait_used(1, 1);
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    CHECK(!device.flush(vmm::Duration::zero()));
    auto flushed = std::async(std::launch::async, [&] { return device.flush(tests::kPauseLimit); });
    std::string text;
    while (text.size() < 4) {
        text += wire.take();
    }
    CHECK(text == "last");
    CHECK(flushed.get());
}

TEST_CASE("input goes into the buffers that the guest has given", "[devices]") {
    ConsoleHost host;
    host.start(VirtioHost::kVersion1, 2);
    CHECK(host.wire.type("nobody") == 0);
    host.add(0, {{kConsoleBuffer, 4, true}});
    host.add(0, {{kConsoleBuffer + 16, 4, true}});
    CHECK(host.wire.type("typing") == 6);
    CHECK(host.wait_used(0, 2)[1] == tests::UsedElement{1, 2});
    CHECK(host.text(kConsoleBuffer, 4) + host.text(kConsoleBuffer + 16, 2) == "typing");
}
