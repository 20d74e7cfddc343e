// DestinationSession: the network side of one Destination. Its control thread is the caller of run(); each
// data connection has a thread of its own.
#pragma once

#include <condition_variable>
#include <thread>

#include "migration/destination.hpp"
#include "migration/message_stream.hpp"

namespace migration {

class DestinationSession {
  public:
    // `control` carried `hello` already; run() answers it.
    DestinationSession(const Hello& hello, std::unique_ptr<Transport> control, DestinationServices services);
    ~DestinationSession();
    DestinationSession(const DestinationSession&) = delete;
    DestinationSession& operator=(const DestinationSession&) = delete;

    // Serves the session to its end. True: this process owns a guest now, running or placed. The source may
    // still ask with Query; the record stays locked while this object lives.
    bool run();

    // A connection that said Hello(data) with this session's id. Any thread.
    void join(const Hello& hello, std::unique_ptr<Transport> transport);
    // A connection that said Hello(resume): takes the place of control, whose source has given it up. Any
    // thread.
    void resume(const Hello& hello, std::unique_ptr<Transport> transport);
    // Shuts the control connection, then decides. Any thread.
    QueryOutcome query();

    const Destination& destination() const { return destination_; }

  private:
    struct Stream {
        explicit Stream(std::unique_ptr<Transport> transport) : messages(std::move(transport)) {}
        MessageStream messages;
        std::thread thread;
    };

    // Hands one message over; false when the session is over. An error is that of a connection.
    vmm::Result<bool> serve(MessageStream& control, Incoming incoming);
    Step take(MessageStream& control, const Message& message, std::span<const std::byte> payload);
    vmm::Result<void> wait_quiet();
    // The connection is of no use any more. True: another has taken its place.
    bool interrupted(const vmm::Error& why);
    bool wait_resumed();
    std::shared_ptr<MessageStream> control() const;
    void keep_source_waiting();
    void receive_pages(std::uint16_t number, MessageStream& messages);
    // One message of a stream that carries pages: nothing, when it is for the Destination.
    std::optional<vmm::Result<void>> take_pages(std::uint16_t number, const Incoming& incoming,
                                                MessageStream& messages);
    void give_up(const vmm::Error& why);
    // Of a stream: the control thread hears of it by its own connection.
    void stream_failed(vmm::Error why);
    void close_streams();
    void end_streams();

    Destination destination_;

    mutable std::mutex mutex_;
    std::shared_ptr<MessageStream> control_;
    std::shared_ptr<MessageStream> next_control_;  // of a resumed session, until the control thread takes it
    std::optional<vmm::Error> stream_error_;       // the first
    std::condition_variable changed_;              // a stream became quiet, or the session ended
    std::vector<std::unique_ptr<Stream>> streams_;
    std::vector<bool> joined_;
    bool over_ = false;
    vmm::TimePoint last_keep_alive_ = vmm::real_clock().now();
};

}  // namespace migration
