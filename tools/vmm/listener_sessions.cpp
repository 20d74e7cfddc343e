// The processes of a Listener's sessions: how they begin, what they are passed, what they say, how they end.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "migration/query.hpp"
#include "tools/vmm/listener.hpp"
#include "tools/vmm/log.hpp"

namespace tools {

using migration::HelloStatus;
using migration::Purpose;
using migration::QueryOutcome;

namespace {

constexpr vmm::Duration kAnswerLimit = std::chrono::seconds{2};
// A source that lost its connection asks for this long, once a second.
constexpr vmm::Duration kResolveLimit = std::chrono::seconds{15};
constexpr std::size_t kMaxReleased = 256;

// The header of glibc 2.36 declares pidfd_open() for C only.
int pidfd_of(pid_t pid) {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

}  // namespace

vmm::Result<std::size_t> Listener::Connection::receive(std::span<std::byte> to) {
    return tls ? TRY(tls->receive(to)).bytes : FrameReader::receive(socket.get(), to);
}

// A small frame for a socket that has carried little yet fits into its buffer.
bool Listener::Connection::send(const migration::Message& message) {
    const vmm::Bytes frame = migration::encode_frame(message);
    if (tls) {
        const auto moved = tls->send(frame);
        return moved && moved->bytes == frame.size();
    }
    const ssize_t sent = ::send(socket.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent == static_cast<ssize_t>(frame.size());
}

void Listener::reply(Connection& connection, HelloStatus status, std::string text) {
    connection.send(migration::HelloReply{status, migration::kProtocolVersion, std::move(text)});
    connection.state = Connection::State::done;
}

Listener::Session* Listener::find(const migration::Hello& hello) {
    const auto found = std::find_if(sessions_.begin(), sessions_.end(), [&](const auto& session) {
        return session->hello.session == hello.session &&
               migration::equal_secrets(session->hello.secret, hello.secret);
    });
    return found == sessions_.end() ? nullptr : found->get();
}

Listener::Session* Listener::find(const migration::SessionId& session) {
    const auto found = std::find_if(sessions_.begin(), sessions_.end(),
                                    [&](const auto& entry) { return entry->hello.session == session; });
    return found == sessions_.end() ? nullptr : found->get();
}

void Listener::start_session(Connection& connection) {
    const bool known = std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& session) {
        return session->hello.session == connection.hello.session;
    });
    auto channels = SessionChannel::create();
    if (known || !channels) {
        return reply(connection, HelloStatus::busy,
                     known ? "this session exists already" : channels.error().text());
    }
    const auto ends = back_ends(options_.guest);
    const bool any_end = std::any_of(ends.begin(), ends.end(), [](const devices::SerialConfig& end) {
        return end.kind != devices::SerialConfig::Kind::null;
    });
    const bool serial_taken =
        any_end && std::any_of(sessions_.begin(), sessions_.end(), [](const auto& session) {
            return session->hello.purpose == Purpose::control && !session->released &&
                   (session->owned || !session->over);
        });
    const pid_t pid = ::fork();
    if (pid < 0) {
        return reply(connection, HelloStatus::busy, fmt::format("fork failed with error {}", errno));
    }
    if (pid == 0) {
        // Ctrl-C at the listener's terminal is not meant for its guests. One that owns the terminal stays in
        // the terminal's foreground group: there Ctrl-C is a key like any other.
        if (!uses_stdio(options_.guest)) {
            (void)::setpgid(0, 0);
        }
        child_.emplace(Accepted{connection.hello, std::move(connection.socket), connection.peer,
                                std::move(connection.tls), std::move(channels->second), serial_taken});
        return;
    }
    auto session = std::make_unique<Session>(Session{
        pid, vmm::UniqueFd{pidfd_of(pid)}, std::move(channels->first), connection.hello, connection.peer});
    sessions_.push_back(std::move(session));
    connection.state = Connection::State::done;
}

void Listener::join_session(Connection& connection) {
    pass_on(connection, find(connection.hello), connection.hello);
}

void Listener::pass_on(Connection& connection, const Session* session, const migration::Hello& hello) {
    ChannelMessage message;
    message.kind = ChannelMessage::Kind::join;
    message.hello = hello;
    message.peer = connection.peer;
    // A guest that has arrived hears no strangers: what goes on with its process is over.
    if (session == nullptr || session->over || !session->channel.send(message, connection.socket.get())) {
        return reply(connection, HelloStatus::unknown_session, "no session waits for this connection");
    }
    connection.state = Connection::State::done;
}

void Listener::ask_session(Connection& connection) {
    connection.query = next_query_++;
    connection.state = Connection::State::asking;
    connection.deadline = now() + kAnswerLimit;
    const Session* session = find(connection.hello);
    ChannelMessage message;
    message.kind = ChannelMessage::Kind::query;
    message.number = connection.query;
    if (session == nullptr) {
        answer(connection, answer_from_records(connection.hello));
        return;
    }
    // To a process that has just ended nothing can be sent: reap() answers, once its last words were read.
    (void)session->channel.send(message);
}

QueryOutcome Listener::answer_from_records(const migration::Hello& hello) const {
    const bool released = std::any_of(released_.begin(), released_.end(), [&](const Released& entry) {
        return entry.session == hello.session && migration::equal_secrets(entry.secret, hello.secret);
    });
    // It ran here, and its end was its own: the source has nothing to keep.
    return released ? QueryOutcome::running : migration::answer_query(records_, hello, boot_id_);
}

void Listener::answer(Connection& connection, QueryOutcome outcome) {
    connection.send(migration::QueryAnswer{outcome});
    connection.outcome = outcome;
    connection.state = Connection::State::answered;
    connection.deadline = now() + kHelloLimit;
}

void Listener::serve_sessions() {
    for (const auto& session : sessions_) {
        while (receive(*session)) {
        }
    }
    for (auto entry = sessions_.begin(); entry != sessions_.end();) {
        int status = 0;
        if (::waitpid((*entry)->pid, &status, WNOHANG) != (*entry)->pid) {
            ++entry;
            continue;
        }
        while (receive(**entry)) {  // what it said last
        }
        const std::unique_ptr<Session> ended = std::move(*entry);
        entry = sessions_.erase(entry);
        reap(*ended, status);
    }
}

bool Listener::receive(Session& session) {
    const auto received = session.channel.receive(false);
    session.silent = session.silent || !received;
    if (!received || !*received) {
        return false;
    }
    const ChannelMessage& message = (*received)->message;
    switch (message.kind) {
        case ChannelMessage::Kind::owned:
            session.owned = true;
            if (options_.once) {
                received_ = session.hello.session;
            }
            break;
        case ChannelMessage::Kind::over:
            session.over = true;
            if (message.acknowledged && received_ == session.hello.session) {
                resolved_ = true;
            }
            break;
        case ChannelMessage::Kind::released:
            session.released = true;
            break;
        case ChannelMessage::Kind::answer:
            for (const auto& connection : connections_) {
                // A session speaks for itself only, whatever numbers its process makes up.
                if (connection->state == Connection::State::asking && connection->query == message.number &&
                    connection->hello.session == session.hello.session) {
                    answer(*connection, message.outcome);
                }
            }
            break;
        case ChannelMessage::Kind::join:
        case ChannelMessage::Kind::query:
            break;
    }
    return true;
}

void Listener::reap(const Session& session, int wait_status) {
    const bool exited = WIFEXITED(wait_status);
    if (!exited) {
        log_line("receive: the process of session {} was killed by signal {}",
                 migration::to_hex(session.hello.session), WTERMSIG(wait_status));
    }
    if (session.released) {
        if (released_.size() == kMaxReleased) {
            released_.erase(released_.begin());
        }
        released_.push_back({session.hello.session, session.hello.secret});
    }
    for (const auto& connection : connections_) {
        if (connection->state == Connection::State::asking &&
            connection->hello.session == session.hello.session) {
            answer(*connection, answer_from_records(connection->hello));
        }
    }
    if (received_ == session.hello.session) {
        status_ = exited ? WEXITSTATUS(wait_status) : kFailureStatus;
        leave_at_ = now() + kResolveLimit;
    }
}

}  // namespace tools
