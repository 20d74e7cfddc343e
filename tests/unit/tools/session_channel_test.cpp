#include "tools/vmm/session_channel.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>

using namespace tools;

TEST_CASE("a connection is passed on with its greeting", "[tools]") {
    auto ends = SessionChannel::create();
    REQUIRE(ends.has_value());
    std::array<int, 2> pipe_ends{};
    REQUIRE(::pipe(pipe_ends.data()) == 0);
    vmm::UniqueFd read_end{pipe_ends[0]};
    const vmm::UniqueFd write_end{pipe_ends[1]};

    ChannelMessage message;
    message.kind = ChannelMessage::Kind::join;
    message.hello.versions.assign(16, 1);
    message.hello.secret.fill(0xee);
    message.peer = std::string(256, 'p');
    REQUIRE(ends->first.send(message, read_end.get()).has_value());
    read_end.reset();

    auto received = ends->second.receive(false);
    REQUIRE(received.has_value());
    REQUIRE(received->has_value());
    CHECK((*received)->message.peer == message.peer);
    CHECK((*received)->message.hello.secret == message.hello.secret);
    char c = 0;
    REQUIRE(::write(write_end.get(), "x", 1) == 1);
    CHECK(::read((*received)->descriptor.get(), &c, 1) == 1);
    CHECK(c == 'x');
}

TEST_CASE("nothing to receive, an end and a dead peer are told apart", "[tools]") {
    auto ends = SessionChannel::create();
    const auto nothing = ends->first.receive(false);
    REQUIRE(nothing.has_value());
    CHECK_FALSE(nothing->has_value());

    ends->first.shut();
    CHECK_FALSE(ends->first.receive(true).has_value());

    { const SessionChannel gone = std::move(ends->second); }
    CHECK_FALSE(ends->first.receive(false).has_value());
    CHECK_FALSE(ends->first.send(ChannelMessage{}).has_value());
}

TEST_CASE("a session that does not listen never makes the listener wait", "[tools]") {
    auto ends = SessionChannel::create();
    bool refused = false;
    for (int i = 0; i < 100'000 && !refused; ++i) {
        refused = !ends->first.send(ChannelMessage{}).has_value();
    }
    CHECK(refused);
}
