#include "devices/serial_16550.hpp"

#include <catch2/catch.hpp>
#include <thread>

#include "tests/unit/devices/device_state.hpp"
#include "tests/unit/devices/fakes.hpp"

using devices::Serial16550;
using devices::Serial16550State;
using tests::in;
using tests::out;
using namespace devices::uart;

namespace {

struct Port {
    explicit Port(bool running = true) {
        if (running) {
            wire.listen();
            serial.resume();
        }
    }
    // FIFO on, interrupts `ier`, OUT2 on: what a driver sets up.
    void open(unsigned ier) {
        out(serial, kIirFcr, kFcrEnable);
        out(serial, kMcr, kMcrOut2 | kMcrRts | kMcrDtr);
        out(serial, kIer, ier);
    }
    std::uint8_t cause() { return in(serial, kIirFcr) & 0x0f; }

    tests::FakeLine line;
    tests::FakeWire wire;
    Serial16550 serial{line, std::make_unique<tests::FakeBackend>(wire)};
};

}  // namespace

TEST_CASE("the serial port's registers read as after a master reset", "[devices]") {
    Port port;
    CHECK(in(port.serial, kIer) == 0);
    CHECK(in(port.serial, kIirFcr) == kIirNone);
    CHECK(in(port.serial, kLcr) == 0);
    CHECK(in(port.serial, kMcr) == 0);
    CHECK(in(port.serial, kLsr) == (kLsrHoldingEmpty | kLsrIdle));
    CHECK(in(port.serial, kMsr) == (kMsrCts | kMsrDsr | kMsrDcd));
    CHECK(in(port.serial, kData) == 0);
    CHECK_FALSE(port.line.level());
}

TEST_CASE("the divisor shares its ports with data and IER", "[devices]") {
    Port port;
    out(port.serial, kIer, 0x05);
    out(port.serial, kLcr, kLcrDivisor | 0x03);
    out(port.serial, kData, 0x34);
    out(port.serial, kIer, 0x12);
    CHECK(in(port.serial, kData) == 0x34);
    CHECK(in(port.serial, kIer) == 0x12);
    out(port.serial, kLcr, 0x03);
    CHECK(in(port.serial, kIer) == 0x05);
    CHECK(port.wire.take().empty());
}

TEST_CASE("registers keep only the bits they have", "[devices]") {
    Port port;
    out(port.serial, kScr, 0xa5);
    CHECK(in(port.serial, kScr) == 0xa5);
    out(port.serial, kIer, 0xf0);
    CHECK(in(port.serial, kIer) == 0);
    out(port.serial, kMcr, 0xff);
    CHECK(in(port.serial, kMcr) == 0x1f);
    out(port.serial, kLsr, 0);
    out(port.serial, kMsr, 0);
    CHECK(in(port.serial, kLsr) == (kLsrHoldingEmpty | kLsrIdle));
    out(port.serial, kIirFcr, 0xc8);  // without the enable bit the others are not taken
    CHECK((in(port.serial, kIirFcr) & kIirFifo) == 0);
    out(port.serial, kIirFcr, 0xc1);
    CHECK((in(port.serial, kIirFcr) & kIirFifo) == kIirFifo);
}

TEST_CASE("a wide access to the serial port is several narrow ones", "[devices]") {
    Port port;
    const std::array<std::byte, 2> value{std::byte{0x11}, std::byte{0x22}};
    port.serial.write(kMsr, value);
    CHECK(in(port.serial, kScr) == 0x22);
    std::array<std::byte, 4> past_the_end{};
    port.serial.read(kScr, past_the_end);
    CHECK(past_the_end[0] == std::byte{0x22});
    CHECK(past_the_end[1] == std::byte{0xff});
    port.serial.write(kScr, std::array<std::byte, 8>{});
}

TEST_CASE("output reaches the back end in order", "[devices]") {
    Port port;
    const int wakes = port.wire.wakes;
    out(port.serial, kData, "hello");
    CHECK(port.wire.wakes == wakes + 1);
    CHECK(port.wire.take() == "hello");
    out(port.serial, kData, "!");
    CHECK(port.wire.wakes == wakes + 2);
    CHECK(port.wire.take() == "!");
}

TEST_CASE("the transmitter interrupts when it is enabled and after each character", "[devices]") {
    Port port;
    port.open(kIerTransmit);
    CHECK(port.line.level());
    CHECK(port.cause() == kIirTransmit);
    CHECK_FALSE(port.line.level());
    CHECK(port.cause() == kIirNone);
    const int rises = port.line.rises();
    out(port.serial, kData, "ab");
    // Edge-triggered controllers see every character.
    CHECK(port.line.rises() == rises + 2);
    CHECK(port.line.level());
}

TEST_CASE("a full output queue holds THRE down and loses nothing", "[devices]") {
    Port port;
    port.open(kIerTransmit);
    std::string sent;
    while ((in(port.serial, kLsr) & kLsrHoldingEmpty) != 0) {
        // A driver that sees THRE fills the whole FIFO.
        for (int i = 0; i < 16; ++i) {
            sent.push_back(static_cast<char>('a' + sent.size() % 23));
            out(port.serial, kData, static_cast<unsigned char>(sent.back()));
        }
    }
    CHECK(sent.size() == Serial16550State::kOutputLimit);
    CHECK((in(port.serial, kLsr) & kLsrIdle) == 0);
    CHECK(port.cause() == kIirNone);
    CHECK(port.wire.take(15) == sent.substr(0, 15));
    CHECK((in(port.serial, kLsr) & kLsrHoldingEmpty) == 0);
    CHECK(port.wire.take(1) == sent.substr(15, 1));
    CHECK((in(port.serial, kLsr) & kLsrHoldingEmpty) != 0);
    CHECK(port.line.level());
    CHECK(port.cause() == kIirTransmit);
    CHECK(port.wire.take() == sent.substr(16));
}

TEST_CASE("while nobody listens the newest output is kept and the guest never waits", "[devices]") {
    Port port;
    port.wire.leave();
    std::string sent;
    for (std::size_t i = 0; i < Serial16550State::kOutputLimit + 1000; ++i) {
        sent.push_back(static_cast<char>('a' + i % 23));
        out(port.serial, kData, static_cast<unsigned char>(sent.back()));
        if (i % 1024 == 0) {
            REQUIRE((in(port.serial, kLsr) & kLsrHoldingEmpty) != 0);
        }
    }
    CHECK(port.wire.take().empty());
    port.wire.listen();
    CHECK((in(port.serial, kLsr) & kLsrHoldingEmpty) == 0);
    CHECK(port.wire.take() == sent.substr(1000));
}

TEST_CASE("a port without a host forgets its output", "[devices]") {
    Port port;
    out(port.serial, kData, "before");
    port.wire.wire->set_listener(devices::SerialWire::Listener::none);
    out(port.serial, kData, "after");
    port.wire.listen();
    CHECK(port.wire.take().empty());
}

TEST_CASE("input interrupts by trigger level, else by time-out", "[devices]") {
    Port port;
    port.open(kIerReceive);
    out(port.serial, kIirFcr, 0x41);  // trigger at 4
    CHECK(port.wire.type("abc") == 3);
    CHECK(port.line.level());
    CHECK(port.cause() == kIirTimeout);
    CHECK(port.wire.type("d") == 1);
    CHECK(port.cause() == kIirReceive);
    CHECK((in(port.serial, kLsr) & kLsrReady) != 0);
    for (const char c : std::string{"abcd"}) {
        CHECK(in(port.serial, kData) == c);
    }
    CHECK_FALSE(port.line.level());
    CHECK((in(port.serial, kLsr) & kLsrReady) == 0);
}

TEST_CASE("input waits outside while the receiver is full", "[devices]") {
    Port port;
    CHECK(port.wire.type("ab") == 1);  // no FIFO yet
    const int wakes = port.wire.wakes;
    CHECK(in(port.serial, kData) == 'a');
    CHECK(port.wire.wakes == wakes + 1);
    port.open(0);
    CHECK(port.wire.type("0123456789abcdefX") == 16);
    CHECK(in(port.serial, kData) == '0');
    CHECK(port.wire.wakes == wakes + 2);
    CHECK(in(port.serial, kData) == '1');
    CHECK(port.wire.wakes == wakes + 2);
    out(port.serial, kIirFcr, kFcrEnable | kFcrClearReceive);
    CHECK((in(port.serial, kLsr) & kLsrReady) == 0);
}

TEST_CASE("loop-back feeds the transmitter to the receiver and modem outputs to inputs", "[devices]") {
    Port port;
    port.open(0);
    in(port.serial, kMsr);
    out(port.serial, kMcr, kMcrLoop | kMcrOut2 | kMcrRts);
    CHECK(in(port.serial, kMsr) == (kMsrCts | kMsrDcd | kMsrDeltaDsr));
    CHECK(in(port.serial, kMsr) == (kMsrCts | kMsrDcd));
    out(port.serial, kMcr, kMcrLoop | kMcrOut1);
    in(port.serial, kMsr);
    out(port.serial, kMcr, kMcrLoop);
    CHECK(in(port.serial, kMsr) == kMsrRingEnd);
    out(port.serial, kData, "loop");
    CHECK(port.wire.take().empty());
    CHECK(port.wire.type("outside") == 0);
    CHECK(in(port.serial, kData) == 'l');
    const int wakes = port.wire.wakes;
    out(port.serial, kMcr, 0);
    CHECK(port.wire.wakes == wakes + 1);
}

TEST_CASE("an overrun in loop-back is a line status interrupt and loses the right character", "[devices]") {
    Port port;
    out(port.serial, kIer, kIerLine);
    out(port.serial, kMcr, kMcrLoop | kMcrOut2);
    out(port.serial, kData, "xy");
    CHECK_FALSE(port.line.level());  // loop-back disconnects OUT2
    out(port.serial, kMcr, kMcrOut2);
    CHECK(port.line.level());
    CHECK(port.cause() == kIirLine);
    CHECK((in(port.serial, kLsr) & kLsrOverrun) != 0);
    CHECK((in(port.serial, kLsr) & kLsrOverrun) == 0);
    CHECK_FALSE(port.line.level());
    CHECK(in(port.serial, kData) == 'y');

    port.open(0);
    out(port.serial, kMcr, kMcrLoop);
    out(port.serial, kData, "0123456789abcdefX");
    CHECK((in(port.serial, kLsr) & kLsrOverrun) != 0);
    for (const char c : std::string{"0123456789abcdef"}) {
        CHECK(in(port.serial, kData) == c);
    }
}

TEST_CASE("OUT2 gates the interrupt, and modem changes raise it", "[devices]") {
    Port port;
    out(port.serial, kIer, kIerModem);
    out(port.serial, kMcr, kMcrLoop);
    out(port.serial, kMcr, 0);
    CHECK(port.cause() == kIirModem);
    CHECK_FALSE(port.line.level());
    out(port.serial, kMcr, kMcrOut2);
    CHECK(port.line.level());
    in(port.serial, kMsr);
    CHECK_FALSE(port.line.level());
}

TEST_CASE("nothing moves while the serial port is paused", "[devices]") {
    Port port{false};  // created paused
    port.wire.listen();
    CHECK(port.wire.type("x") == 0);
    port.serial.resume();
    port.open(kIerReceive);
    out(port.serial, kData, "kept");
    (void)port.serial.pause(tests::kPauseLimit);
    CHECK(port.wire.take().empty());
    CHECK(port.wire.type("x") == 0);
    const int wakes = port.wire.wakes;
    port.serial.resume();
    CHECK(port.wire.wakes == wakes + 1);
    CHECK(port.wire.take() == "kept");
}

TEST_CASE("pause waits for bytes that the host is just taking", "[devices]") {
    Port port;
    out(port.serial, kData, "abc");
    std::thread pauser;
    port.wire.wire->transmit([&](std::span<const std::byte> bytes) {
        pauser = std::thread{[&] { (void)port.serial.pause(tests::kPauseLimit); }};
        std::this_thread::sleep_for(std::chrono::milliseconds{20});
        return bytes.size() - 1;
    });
    pauser.join();
    auto reader = vmm::SnapshotReader::parse(tests::save(port.serial));
    REQUIRE(reader);
    const auto state = reader->take<Serial16550State>(0);
    REQUIRE(state);
    CHECK(state->output == vmm::Bytes{std::byte{'c'}});
}

TEST_CASE("undelivered bytes move with the guest, none lost and none doubled", "[devices]") {
    Port source;
    source.open(kIerReceive);
    out(source.serial, kData, "one two");
    CHECK(source.wire.take(3) == "one");
    CHECK(source.wire.type("typed") == 5);
    (void)source.serial.pause(tests::kPauseLimit);
    Port destination{false};
    destination.wire.listen();
    REQUIRE(tests::restore(destination.serial, tests::save(source.serial)));
    CHECK(destination.line.calls() == 0);  // resume raises it, not restore
    destination.serial.resume();
    CHECK(destination.line.level());
    CHECK(destination.wire.take() == " two");
    for (const char c : std::string{"typed"}) {
        CHECK(in(destination.serial, kData) == c);
    }
    // A destination that turned out not to start: the source goes on with the same bytes, and raises its line
    // again even though it is up, because an interrupt in flight may have been lost.
    const int calls = source.line.calls();
    source.serial.resume();
    CHECK(source.line.level());
    CHECK(source.line.calls() == calls + 1);
    CHECK(source.wire.take() == " two");
}

TEST_CASE("a reset does not lose output that has left the chip", "[devices]") {
    Port port;
    port.open(kIerReceive);
    out(port.serial, kData, "last words");
    (void)port.serial.pause(tests::kPauseLimit);
    port.serial.reset();
    port.serial.resume();
    CHECK_FALSE(port.line.level());
    CHECK(in(port.serial, kIer) == 0);
    CHECK(port.wire.take() == "last words");
}

TEST_CASE("flush delivers what an ended guest has written", "[devices]") {
    Port port;
    out(port.serial, kData, "PASS");
    (void)port.serial.pause(tests::kPauseLimit);
    CHECK_FALSE(port.serial.flush(std::chrono::milliseconds{5}));
    std::string got;
    std::thread host{[&] {
        while (got.empty()) {
            got = port.wire.take();
        }
    }};
    CHECK(port.serial.flush(std::chrono::seconds{10}));
    host.join();
    CHECK(got == "PASS");
    port.wire.leave();
    CHECK(port.serial.flush(std::chrono::seconds{10}));
}
