#include "tools/vmm/frame_reader.hpp"

#include <sys/socket.h>

#include <catch2/catch.hpp>

using namespace tools;
using migration::Hello;
using migration::Message;
using vmm::Code;

namespace {

struct ReaderPair {
    ReaderPair() {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
        ours = vmm::UniqueFd{ends[0]};
        theirs = vmm::UniqueFd{ends[1]};
    }
    void say(std::span<const std::byte> bytes) {
        REQUIRE(::send(theirs.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    }
    FrameReader::Receive receive() const {
        return [this](std::span<std::byte> to) { return FrameReader::receive(ours.get(), to); };
    }
    std::size_t waiting() const {
        std::array<std::byte, 8192> bytes;
        const ssize_t got = ::recv(ours.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
        return got < 0 ? 0 : static_cast<std::size_t>(got);
    }

    vmm::UniqueFd ours;
    vmm::UniqueFd theirs;
};

Hello sample_hello() {
    Hello message;
    message.versions = {1};
    message.session[3] = 7;
    message.secret[5] = 9;
    return message;
}

}  // namespace

TEST_CASE("a greeting is read from whatever pieces it comes in, without waiting", "[tools]") {
    ReaderPair pair;
    FrameReader reader;
    const vmm::Bytes frame = migration::encode_frame(sample_hello());
    for (std::size_t i = 0; i < frame.size(); ++i) {
        const auto nothing = reader.advance(pair.receive());
        REQUIRE(nothing.has_value());
        CHECK_FALSE(nothing->has_value());
        pair.say(std::span{frame}.subspan(i, 1));
    }
    const auto message = reader.advance(pair.receive());
    REQUIRE(message.has_value());
    REQUIRE(message->has_value());
    CHECK(std::get<Hello>(std::get<Message>(**message)).session == sample_hello().session);
}

TEST_CASE("not a byte beyond the greeting is taken: it belongs to the session", "[tools]") {
    ReaderPair pair;
    FrameReader reader;
    vmm::Bytes frame = migration::encode_frame(sample_hello());
    frame.resize(frame.size() + 100);
    pair.say(frame);
    REQUIRE(reader.advance(pair.receive())->has_value());
    CHECK(pair.waiting() == 100);
}

TEST_CASE("after a frame the reader takes the next one", "[tools]") {
    ReaderPair pair;
    FrameReader reader;
    pair.say(migration::encode_frame(sample_hello()));
    pair.say(migration::encode_frame(migration::Acknowledge{}));
    REQUIRE(reader.advance(pair.receive())->has_value());
    const auto second = reader.advance(pair.receive());
    REQUIRE(second->has_value());
    CHECK(std::holds_alternative<migration::Acknowledge>(std::get<Message>(**second)));
}

TEST_CASE("what is no greeting is refused by its first bytes", "[tools]") {
    ReaderPair pair;
    FrameReader reader;
    const std::string_view http = "GET / HTTP/1.1\r\nHost: example.org:7000\r\nAccept: */*\r\n\r\n";
    pair.say(std::as_bytes(std::span{http}));
    CHECK_FALSE(reader.advance(pair.receive()).has_value());
}

TEST_CASE("a greeting that ends early is an error", "[tools]") {
    ReaderPair pair;
    FrameReader reader;
    const vmm::Bytes frame = migration::encode_frame(sample_hello());
    pair.say(std::span{frame}.first(frame.size() - 1));
    pair.theirs.reset();
    const auto message = reader.advance(pair.receive());
    REQUIRE_FALSE(message.has_value());
    CHECK(message.error().code() == Code::closed);
}

TEST_CASE("a length above the limit is refused before a byte of it is awaited", "[tools]") {
    ReaderPair pair;
    FrameReader reader;
    migration::MachineState big;
    big.snapshot.resize(8192);
    const vmm::Bytes frame = migration::encode_frame(big);
    pair.say(std::span{frame}.first(migration::kFrameHeaderBytes));
    CHECK_FALSE(reader.advance(pair.receive()).has_value());
}

TEST_CASE("a damaged greeting is refused", "[tools]") {
    for (std::size_t at = 0; at < migration::encode_frame(sample_hello()).size(); ++at) {
        CAPTURE(at);
        ReaderPair pair;
        FrameReader reader;
        vmm::Bytes frame = migration::encode_frame(sample_hello());
        frame[at] ^= std::byte{0x40};
        pair.say(frame);
        pair.theirs.reset();  // a length that grew waits for bytes that never come
        CHECK_FALSE(reader.advance(pair.receive()).has_value());
    }
}
