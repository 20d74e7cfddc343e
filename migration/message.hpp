// Every message of the protocol, as fields. PROTOCOL.md says who sends which when.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "migration/ids.hpp"
#include "migration/manifest.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/clock.hpp"
#include "vmm/state/field.hpp"

namespace migration {

inline constexpr std::uint16_t kProtocolVersion = 3;
inline constexpr std::uint16_t kMaxStreams = 64;
inline constexpr std::size_t kMaxTextBytes = 1024;

// Numbers are part of the protocol: never reused, never changed.
enum class MessageType : std::uint16_t {
    hello = 1,
    hello_reply = 2,
    manifest = 3,
    preflight_reply = 4,
    prepare = 5,
    boot_image_part = 6,
    prepared = 7,
    pages = 8,
    round_end = 9,
    keep_alive = 10,
    finish = 11,
    state = 12,
    ready = 13,
    digest_mismatch = 14,
    inventory = 15,
    failed = 16,
    cancel = 17,
    commit = 18,
    running = 19,
    placed = 20,
    acknowledge = 21,
    query_answer = 22,
    probe = 23,
    probed = 24,
    round_done = 25,
    resume = 26,
    held = 27,
};

enum class Purpose : std::uint8_t { control, data, preflight, query, resume };

struct Hello {
    static constexpr MessageType type = MessageType::hello;
    static constexpr std::size_t max_body = 4096 - 32;

    std::vector<std::uint16_t> versions;
    Purpose purpose = Purpose::control;
    SessionId session{};
    Secret secret{};
    std::uint16_t stream = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.list("versions", self.versions, 16);
        v.enumeration("purpose", self.purpose, Purpose::resume);
        v.field("session", self.session);
        v.field("secret", self.secret);
        v.field("stream", self.stream);
        v.check(self.stream < kMaxStreams, "stream < 64");
    }
};

// A duration by the peer's word, ns: cut to an hour, so that sums of them cannot overflow.
inline vmm::Duration peer_duration(std::uint64_t ns) {
    constexpr std::uint64_t hour = 3600ull * 1'000'000'000;
    return vmm::Duration{static_cast<std::int64_t>(std::min(ns, hour))};
}

// After `queued` another reply follows; it is the only one that is not the last word.
enum class HelloStatus : std::uint8_t { ok, busy, version, unknown_session, queued };

struct HelloReply {
    static constexpr MessageType type = MessageType::hello_reply;
    static constexpr std::size_t max_body = 2048;
    static constexpr std::uint16_t kMaxPlace = 64;

    HelloStatus status = HelloStatus::ok;
    std::uint16_t version = kProtocolVersion;
    std::string text;
    std::uint16_t place = 0;  // in the queue, from 1; 0 unless `queued`

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("status", self.status, HelloStatus::queued);
        v.field("version", self.version);
        v.text("text", self.text, kMaxTextBytes);
        v.field("place", self.place);
        v.check(self.place <= kMaxPlace, "place <= 64");
        v.check((self.place != 0) == (self.status == HelloStatus::queued), "only a queue has places");
    }
};

// Why a move is refused, or what the user should know: a code for programs and three texts for people.
struct Reason {
    std::string code;
    std::string what;
    std::string where;
    std::string remedy;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.text("code", self.code, 64);
        v.text("what", self.what, kMaxTextBytes);
        v.text("where", self.where, kMaxTextBytes);
        v.text("do", self.remedy, kMaxTextBytes);
    }
    bool operator==(const Reason&) const = default;
};

struct PreflightReply {
    static constexpr MessageType type = MessageType::preflight_reply;
    static constexpr std::size_t max_body = std::size_t{1} << 20;
    static constexpr std::size_t kMaxReasons = 256;

    std::vector<Reason> reasons;  // empty: accepted
    std::vector<Reason> warnings;
    std::uint64_t realtime_ns = 0;  // the destination's, when it wrote this
    std::uint64_t spent_ns = 0;     // from the manifest's arrival to then: no part of the round trip

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.list("reasons", self.reasons, kMaxReasons);
        v.list("warnings", self.warnings, kMaxReasons);
        v.field("realtime_ns", self.realtime_ns);
        v.field("spent_ns", self.spent_ns);
    }
};

struct Prepare {
    static constexpr MessageType type = MessageType::prepare;
    static constexpr std::size_t max_body = 64;

    std::uint16_t streams = 0;  // data connections that will follow
    bool verify_full = false;
    std::uint64_t boot_image_hash = 0;  // XXH3-64 of the encoded boot image; its size is in the manifest
    std::uint32_t keep_ms = 0;          // how long to wait for a source whose connection broke; 0: not at all

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("streams", self.streams);
        v.check(self.streams <= kMaxStreams, "streams <= 64");
        v.field("verify_full", self.verify_full);
        v.field("boot_image_hash", self.boot_image_hash);
        v.field("keep_ms", self.keep_ms);
    }
};

// The next bytes of the encoded vmm::BootImage, as payload.
struct BootImagePart {
    static constexpr MessageType type = MessageType::boot_image_part;
    static constexpr std::size_t max_body = 16;
    static constexpr std::size_t kMaxPayload = std::size_t{1} << 20;

    std::uint64_t offset = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("offset", self.offset);
    }
};

struct Prepared {
    static constexpr MessageType type = MessageType::prepared;
    static constexpr std::size_t max_body = 64;

    // What saving and restoring this machine costs here, tried once on the fresh one. ns.
    std::uint64_t save_ns = 0;
    std::uint64_t restore_ns = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("save_ns", self.save_ns);
        v.field("restore_ns", self.restore_ns);
    }
};

enum class ExtentKind : std::uint8_t { data, zero };

struct Extent {
    ExtentKind kind = ExtentKind::data;
    std::uint64_t first = 0;  // guest frame number
    std::uint32_t count = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("kind", self.kind, ExtentKind::zero);
        v.field("first", self.first);
        v.field("count", self.count);
        v.check(self.count != 0, "count is not 0");
    }
};

// What extents count: RAM by guest frame number. Others may follow.
enum class Space : std::uint8_t { ram };

// The data pages of the data extents, in order, are the payload.
struct Pages {
    static constexpr MessageType type = MessageType::pages;
    static constexpr std::size_t max_body = 8192;
    static constexpr std::size_t kMaxExtents = 256;
    static constexpr std::size_t kMaxDataPages = 256;

    std::uint32_t round = 0;
    std::vector<Extent> extents;
    Space space = Space::ram;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("space", self.space, Space::ram);
        v.field("round", self.round);
        v.list("extents", self.extents, kMaxExtents);
    }
};

struct RoundEnd {
    static constexpr MessageType type = MessageType::round_end;
    static constexpr std::size_t max_body = 16;

    std::uint32_t round = 0;
    bool last = false;  // no page follows on this stream

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("round", self.round);
        v.field("last", self.last);
    }
};

// Every stream has brought the end mark of this round, and its pages are placed. Not for the last round,
// which Ready ends.
struct RoundDone {
    static constexpr MessageType type = MessageType::round_done;
    static constexpr std::size_t max_body = 16;

    std::uint32_t round = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("round", self.round);
    }
};

struct KeepAlive {
    static constexpr MessageType type = MessageType::keep_alive;
    static constexpr std::size_t max_body = 0;

    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

struct Digest {
    std::uint64_t low = 0;
    std::uint64_t high = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("low", self.low);
        v.field("high", self.high);
    }
    bool operator==(const Digest&) const = default;
};

struct Finish {
    static constexpr MessageType type = MessageType::finish;
    static constexpr std::size_t max_body = 64;

    Digest digest;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("digest", self.digest);
    }
};

// vmm::SnapshotWriter's bytes.
struct MachineState {
    static constexpr MessageType type = MessageType::state;
    static constexpr std::size_t kMaxSnapshot = std::size_t{64} << 20;
    static constexpr std::size_t max_body = kMaxSnapshot + 16;

    vmm::Bytes snapshot;
    // How long the guest has stood still when this arrives, estimated from round-trip times, ns; 0: the
    // clocks of the two hosts agree, so the destination asks its own.
    std::uint64_t elapsed_ns = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.bytes("snapshot", self.snapshot, kMaxSnapshot);
        v.field("elapsed_ns", self.elapsed_ns);
    }
};

struct Ready {
    static constexpr MessageType type = MessageType::ready;
    static constexpr std::size_t max_body = 64;

    Digest digest;
    std::uint64_t verify_ns = 0;   // waiting for the streams to be quiet, and the digest
    std::uint64_t restore_ns = 0;  // loading the state

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("digest", self.digest);
        v.field("verify_ns", self.verify_ns);
        v.field("restore_ns", self.restore_ns);
    }
};

struct DigestMismatch {
    static constexpr MessageType type = MessageType::digest_mismatch;
    static constexpr std::size_t max_body = 64;

    Digest digest;
    std::uint32_t inventories = 0;  // how many follow

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("digest", self.digest);
        v.field("inventories", self.inventories);
    }
};

// Hashes of pages first, first + 1, .. as the destination holds them; pages in no inventory are zero there.
struct Inventory {
    static constexpr MessageType type = MessageType::inventory;
    static constexpr std::size_t kMaxHashes = 4096;
    static constexpr std::size_t max_body = kMaxHashes * 16 + 64;

    std::uint64_t first = 0;
    std::vector<Digest> hashes;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("first", self.first);
        v.list("hashes", self.hashes, kMaxHashes);
    }
};

struct Failed {
    static constexpr MessageType type = MessageType::failed;
    static constexpr std::size_t max_body = 2048;

    std::string text;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.text("text", self.text, kMaxTextBytes);
    }
};

struct Cancel {
    static constexpr MessageType type = MessageType::cancel;
    static constexpr std::size_t max_body = 2048;

    std::string text;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.text("text", self.text, kMaxTextBytes);
    }
};

struct Commit {
    static constexpr MessageType type = MessageType::commit;
    static constexpr std::size_t max_body = 16;

    std::uint64_t epoch = 0;  // of the new owner

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("epoch", self.epoch);
    }
};

struct Running {
    static constexpr MessageType type = MessageType::running;
    static constexpr std::size_t max_body = 32;

    std::uint64_t resume_ns = 0;  // from Commit received to vCPU 0's KVM_RUN call

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("resume_ns", self.resume_ns);
    }
};

struct Placed {
    static constexpr MessageType type = MessageType::placed;
    static constexpr std::size_t max_body = 0;

    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

struct Acknowledge {
    static constexpr MessageType type = MessageType::acknowledge;
    static constexpr std::size_t max_body = 0;

    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

enum class QueryOutcome : std::uint8_t { running, refused, failed, lost, unknown };

struct QueryAnswer {
    static constexpr MessageType type = MessageType::query_answer;
    static constexpr std::size_t max_body = 16;

    QueryOutcome outcome = QueryOutcome::unknown;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("outcome", self.outcome, QueryOutcome::unknown);
    }
};

// Payload that is thrown away: `vmm preflight` measures the link with it. The last one is answered with
// Probed.
struct Probe {
    static constexpr MessageType type = MessageType::probe;
    static constexpr std::size_t max_body = 16;
    static constexpr std::size_t kMaxPayload = std::size_t{1} << 20;
    static constexpr std::uint32_t kMaxProbes = 64;  // in a session

    bool last = false;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("last", self.last);
    }
};

struct Probed {
    static constexpr MessageType type = MessageType::probed;
    static constexpr std::size_t max_body = 0;

    template <typename Self, typename V>
    static void visit(Self&, V&) {}
};

// The source is back after a broken connection, and goes on with this round.
struct Resume {
    static constexpr MessageType type = MessageType::resume;
    static constexpr std::size_t max_body = 16;

    std::uint32_t next_round = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("next_round", self.next_round);
    }
};

// What the destination holds follows in so many Inventory messages; of pages in none of them it holds zeros.
struct Held {
    static constexpr MessageType type = MessageType::held;
    static constexpr std::size_t max_body = 16;

    std::uint32_t inventories = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("inventories", self.inventories);
    }
};

using Message =
    std::variant<Hello, HelloReply, Manifest, PreflightReply, Prepare, BootImagePart, Prepared, Pages,
                 RoundEnd, KeepAlive, Finish, MachineState, Ready, DigestMismatch, Inventory, Failed, Cancel,
                 Commit, Running, Placed, Acknowledge, QueryAnswer, Probe, Probed, RoundDone, Resume, Held>;

// Bytes that may follow the body of a message of this type.
constexpr std::size_t max_payload(MessageType type) {
    switch (type) {
        case MessageType::pages:
            return Pages::kMaxDataPages * 4096;
        case MessageType::boot_image_part:
            return BootImagePart::kMaxPayload;
        case MessageType::probe:
            return Probe::kMaxPayload;
        default:
            return 0;
    }
}

}  // namespace migration
