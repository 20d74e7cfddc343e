// Transport: a reliable byte stream to the peer, with deadlines. Ports: TCP, and an in-process pair for
// tests.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "vmm/base/clock.hpp"
#include "vmm/base/result.hpp"

namespace migration {

// How long a call may take. Without `at` only progress counts: each byte starts `progress` anew.
struct Deadline {
    vmm::Duration progress = std::chrono::seconds{10};
    std::optional<vmm::TimePoint> at;  // whatever the progress

    static Deadline never() { return {vmm::Duration::max(), std::nullopt}; }
    static Deadline until(vmm::TimePoint at) { return {vmm::Duration::max(), at}; }
};

// Whether an error is of the connection, and no word of the peer's: another connection may do better.
inline bool is_of_link(const vmm::Error& error) {
    return error.code() == vmm::Code::closed || error.code() == vmm::Code::timeout ||
           error.code() == vmm::Code::io;
}
struct Hello;  // message.hpp

// What protects a connection, for reports.
struct TlsFacts {
    std::string version;
    std::string cipher;
    bool kernel_sends = false;  // encrypted by the kernel (kTLS), not here
    bool kernel_receives = false;

    bool operator==(const TlsFacts&) const = default;
};
struct LinkSecurity {
    bool exposed = false;  // it leaves this host, and can be read and changed on the way
    std::optional<TlsFacts> tls;
};

// One thread sends and one receives at a time; shutdown() may come from any thread at any moment.
// Errors: closed (the peer, or shutdown), timeout, io.
class Transport {
  public:
    virtual ~Transport() = default;

    // By who has opened the connection, before all else: each side proves who it is, where the link can do
    // that. What `hello` says is said again in the first message; the secret does not leave before that.
    virtual vmm::Result<void> introduce(const Hello& /*hello*/, const Deadline& /*deadline*/) { return {}; }
    // All bytes of all parts, in order. A failure says nothing about how much was delivered.
    virtual vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) = 0;
    // Fills all parts, in order.
    virtual vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) = 0;
    // Ends both directions; calls that wait return `closed`, and so does every later call.
    virtual void shutdown() = 0;
    // Ends both directions, and drops what was sent but has not left this host.
    virtual void abort() = 0;
    // What the link carries, as the last bytes sent have shown, bytes/s; 0: not known.
    virtual double delivery_rate() const { return 0; }
    // Known once introduce() has succeeded.
    virtual LinkSecurity security() const { return {}; }
    // "tcp:127.0.0.1:7000", for texts.
    virtual std::string peer() const = 0;
};

// Opens further connections to one destination: data connections, and queries after a lost one.
class Connector {
  public:
    virtual ~Connector() = default;
    virtual vmm::Result<std::unique_ptr<Transport>> connect(const Deadline& deadline) = 0;
    virtual std::string address() const = 0;
};

inline iovec part_of(std::span<const std::byte> bytes) {
    return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace migration
