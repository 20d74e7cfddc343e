// MessageStream: messages over a transport. Limits and checksums of what comes in are checked here and
// nowhere else.
#pragma once

#include <atomic>
#include <mutex>

#include "migration/frame.hpp"
#include "migration/transport.hpp"

namespace migration {

// A message whose payload, if it has one, still waits in the transport: take it with receive_payload() before
// the next message.
struct Incoming {
    Message message;
    std::size_t payload_bytes = 0;
};

// Several threads may send; one receives.
class MessageStream {
  public:
    explicit MessageStream(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}

    // Before the first message, by who has opened the connection.
    vmm::Result<void> introduce(const Hello& hello, const Deadline& deadline) {
        return transport_->introduce(hello, deadline);
    }
    vmm::Result<void> send(const Message& message, const Deadline& deadline = {});
    // Sends a message and its payload in one go.
    vmm::Result<void> send(const Message& message, std::span<const iovec> payload,
                           const Deadline& deadline = {});

    // `max_bytes` bounds body and payload together, on top of the limit of each message type.
    vmm::Result<Incoming> receive(std::size_t max_bytes, const Deadline& deadline = {});
    vmm::Result<void> receive_payload(std::span<const iovec> parts, const Deadline& deadline = {});
    // The next message must be a T; the peer's `Failed` or `Cancel` becomes an error with its text.
    template <typename T>
    vmm::Result<T> expect(const Deadline& deadline = {}, std::size_t max_bytes = T::max_body);

    // The error of a message that is not the one that was due.
    static vmm::Failure unexpected(const Message& message, std::string_view wanted);

    // Whether a send or receive has failed: by the connection, or because somebody shut it.
    bool broken() const { return broken_.load(std::memory_order_relaxed); }
    void shutdown() { transport_->shutdown(); }
    void abort() { transport_->abort(); }
    // Hands the transport on: whoever read the first message is not who serves the connection.
    std::unique_ptr<Transport> release() { return std::move(transport_); }
    double delivery_rate() const { return transport_->delivery_rate(); }
    LinkSecurity security() const { return transport_->security(); }
    std::string peer() const { return transport_->peer(); }
    std::uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }

  private:
    vmm::Result<void> take(std::span<const iovec> parts, const Deadline& deadline);

    std::unique_ptr<Transport> transport_;
    std::mutex sending_;  // a frame goes out whole
    std::atomic<std::uint64_t> bytes_sent_ = 0;
    std::atomic<bool> broken_ = false;
};

template <typename T>
vmm::Result<T> MessageStream::expect(const Deadline& deadline, std::size_t max_bytes) {
    // Room for a Failed instead of the T.
    Incoming incoming = TRY(receive(std::max(max_bytes, Failed::max_body), deadline));
    if (T* message = std::get_if<T>(&incoming.message)) {
        return std::move(*message);
    }
    return unexpected(incoming.message, message_name(T::type));
}

}  // namespace migration
