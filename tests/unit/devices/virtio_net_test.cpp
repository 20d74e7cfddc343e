#include "devices/virtio/net.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include "tests/unit/devices/device_state.hpp"
#include "tests/unit/devices/virtio_host.hpp"

using namespace tests::mmio;
using tests::VirtioHost;

namespace {

constexpr std::uint64_t kMrgRxbuf = std::uint64_t{1} << 15;
constexpr std::uint64_t kAnnounce = std::uint64_t{1} << 17 | std::uint64_t{1} << 21;
constexpr std::uint64_t kNetBuffer = VirtioHost::kData;
constexpr std::string_view kMac{"\x52\x54\x00\x01\x02\x03", 6};

struct NetHost : VirtioHost {
    NetHost() {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
        REQUIRE(::fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
        wire = vmm::UniqueFd{ends[1]};
        auto device = devices::virtio::Net::create(devices::virtio::Tap::adopt(vmm::UniqueFd{ends[0]}),
                                                   {0x52, 0x54, 0, 1, 2, 3});
        REQUIRE(device);
        make(std::move(*device));
    }
    void from_network(std::string_view frame) {
        const std::string whole = std::string(12, '\0') + std::string{frame};
        REQUIRE(::write(wire.get(), whole.data(), whole.size()) == static_cast<ssize_t>(whole.size()));
    }
    // The next frame that the guest or its device sent, without the header.
    std::string to_network() {
        std::string frame(2048, '\0');
        const ssize_t count = ::read(wire.get(), frame.data(), frame.size());
        REQUIRE(count >= 12);
        return frame.substr(12, static_cast<std::size_t>(count) - 12);
    }

    vmm::UniqueFd wire;
};

}  // namespace

TEST_CASE("frames go both ways", "[devices]") {
    NetHost host;
    CHECK(host.read(kConfig) == 0x00'00'54'52 + 0x01'00'00'00);
    host.start(VirtioHost::kVersion1, 2);
    host.set_text(kNetBuffer, std::string(12, '\0') + "to the network");
    host.add(1, {{kNetBuffer, 12}, {kNetBuffer + 12, 14}});
    host.kick(1);
    CHECK(host.to_network() == "to the network");
    CHECK(host.wait_used(1, 1)[0].written == 0);
    host.add(0, {{kNetBuffer, 1600, true}});
    host.kick(0);
    host.from_network("to the guest");
    CHECK(host.wait_used(0, 1)[0].written == 24);
    CHECK(host.text(kNetBuffer + 12, 12) == "to the guest");
    CHECK(host.load<std::uint16_t>(kNetBuffer + 10) == 1);  // num_buffers
}

TEST_CASE("a frame waits for buffers, and takes several where that was agreed", "[devices]") {
    NetHost host;
    host.start(VirtioHost::kVersion1 | kMrgRxbuf | VirtioHost::kEventIdx, 2);
    host.kick(0);
    const std::string frame(1500, 'f');
    host.from_network(frame);
    host.add(0, {{kNetBuffer, 1000, true}});
    host.kick(0);
    host.sync();
    CHECK(host.used_index(0) == 0);
    host.add(0, {{kNetBuffer + 1000, 1000, true}});
    host.kick(0);
    const auto used = host.wait_used(0, 2);
    CHECK(used[0].written == 1000);
    CHECK(used[1].written == 512);
    CHECK(host.load<std::uint16_t>(kNetBuffer + 10) == 2);
    CHECK(host.text(kNetBuffer + 12, 1500) == frame);
}

TEST_CASE("a frame that is longer than its one buffer is lost, and the buffer is not", "[devices]") {
    NetHost host;
    host.start(VirtioHost::kVersion1, 2);
    host.add(0, {{kNetBuffer, 100, true}});
    host.kick(0);
    host.from_network(std::string(200, 'x'));
    host.from_network("short");
    CHECK(host.wait_used(0, 1)[0].written == 17);
    CHECK(host.text(kNetBuffer + 12, 5) == "short");
}

TEST_CASE("a tap that was taken away is a link that is down", "[devices]") {
    NetHost host;
    host.start(VirtioHost::kVersion1, 2);
    host.add(0, {{kNetBuffer, 1600, true}});
    host.kick(0);
    host.sync();
    host.wire.reset();
    CHECK(host.wait_interrupt());
    CHECK(host.read(kInterruptStatus) == 2);
    CHECK((host.read(kConfig + 4) >> 16) == 0);
    CHECK_THAT(host.broken, Catch::Matchers::Contains("the tap cannot be read any more"));
    host.kick(0);
    host.sync();
    CHECK(host.read(kStatus) == 15);
}

TEST_CASE("after a move the network hears of the guest, and the driver is asked to announce it",
          "[devices]") {
    NetHost source;
    source.start(VirtioHost::kVersion1 | kAnnounce, 3);
    REQUIRE(source.transport().pause(tests::kPauseLimit));
    NetHost target;
    REQUIRE(tests::restore(target.transport(), tests::save(source.transport())));
    target.transport().resume();
    for (int i = 0; i < 5; ++i) {
        const std::string frame = target.to_network();
        CHECK(frame.size() == 60);
        CHECK(frame.substr(0, 6) == std::string(6, '\xff'));
        CHECK(frame.substr(6, 6) == kMac);
        CHECK(frame.substr(12, 2) == "\x80\x35");
    }
    CHECK(target.read(kInterruptStatus) == 2);
    CHECK((target.read(kConfig + 4) >> 16) == 3);  // link up, announce
    target.store(kNetBuffer, std::uint16_t{3});    // class announce, command acknowledge
    target.add(2, {{kNetBuffer, 2}, {kNetBuffer + 8, 1, true}});
    target.kick(2);
    target.wait_used(2, 1);
    CHECK(target.load<std::uint8_t>(kNetBuffer + 8) == 0);
    CHECK((target.read(kConfig + 4) >> 16) == 1);
    // Nothing is announced by a pause alone.
    REQUIRE(target.transport().pause(tests::kPauseLimit));
    target.transport().resume();
    CHECK((target.read(kConfig + 4) >> 16) == 1);
    target.store(kNetBuffer, std::uint16_t{4});
    target.add(2, {{kNetBuffer, 2}, {kNetBuffer + 8, 1, true}});
    target.kick(2);
    target.wait_used(2, 1);
    CHECK(target.load<std::uint8_t>(kNetBuffer + 8) == 1);  // a command that is not known
}

TEST_CASE("after a move that was undone the network hears of the guest too", "[devices]") {
    NetHost host;
    host.start(VirtioHost::kVersion1 | kAnnounce, 3);
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    (void)tests::save(host.transport());
    host.add(0, {{kNetBuffer, 1600, true}});
    host.from_network("came in the pause");
    host.transport().resume();
    CHECK(host.to_network().substr(12, 2) == "\x80\x35");
    CHECK((host.read(kConfig + 4) >> 16) == 3);
    CHECK(host.wait_used(0, 1)[0].written == 12 + 17);
}

TEST_CASE("a guest that arrives gets nothing that was broadcast before it was there", "[devices]") {
    NetHost source;
    source.start(VirtioHost::kVersion1, 2);
    REQUIRE(source.transport().pause(tests::kPauseLimit));
    NetHost target;
    REQUIRE(tests::restore(target.transport(), tests::save(source.transport())));
    for (int i = 0; i < 3; ++i) {
        target.from_network("long ago");
    }
    target.add(0, {{kNetBuffer, 1600, true}});
    target.transport().resume();
    target.sync();
    CHECK(target.used_index(0) == 0);
    target.from_network("now");
    target.wait_used(0, 1);
    CHECK(target.text(kNetBuffer + 12, 3) == "now");
}
