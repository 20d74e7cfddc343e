// Who waits for a place at a Listener: its guests in the order in which they came, and for how long.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "tools/vmm/listener.hpp"
#include "tools/vmm/log.hpp"

namespace tools {

using migration::HelloStatus;
using migration::Purpose;

namespace {

bool has_left(const vmm::UniqueFd& socket) {
    pollfd entry{socket.get(), POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) > 0;
}

bool speaks_our_version(const migration::Hello& hello) {
    return std::find(hello.versions.begin(), hello.versions.end(), migration::kProtocolVersion) !=
           hello.versions.end();
}

// A peer whose host is gone gives its place up as soon as one in a session would.
void notice_dead_peer(const vmm::UniqueFd& socket) {
    const unsigned int limit_ms = 10'000;
    (void)::setsockopt(socket.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms);
}

}  // namespace

std::size_t Listener::pending() const {
    return static_cast<std::size_t>(
        std::count_if(connections_.begin(), connections_.end(),
                      [](const auto& connection) { return !connection->is_queued(); }));
}

void Listener::seat_waiting() {
    std::vector<Connection*> waiting;
    for (const auto& connection : connections_) {
        if (connection->state == Connection::State::waiting) {
            waiting.push_back(connection.get());
        }
    }
    std::sort(waiting.begin(), waiting.end(),
              [](const auto* one, const auto* other) { return one->arrival < other->arrival; });
    std::size_t ahead = 0;
    for (Connection* connection : waiting) {
        if (has_left(connection->socket)) {
            connection->state = Connection::State::done;
            continue;
        }
        seat(*connection, ahead);
        if (child_) {
            return;
        }
        if (connection->state == Connection::State::waiting &&
            connection->hello.purpose == Purpose::control) {
            ++ahead;
        }
    }
}

void Listener::seat(Connection& connection, std::size_t ahead) {
    const bool guest = connection.hello.purpose == Purpose::control;
    const bool expired = now() >= connection.deadline;
    const auto leaving = [](const auto& session) {
        return is_incoming(session) && session->over && !session->owned;
    };
    const auto refused = refusal(connection.hello.purpose);
    if (refused && refused->for_good) {
        return reply(connection, HelloStatus::busy, refused->why);
    }
    if (!refused && (!guest || ahead == 0) &&
        (expired || std::none_of(sessions_.begin(), sessions_.end(), leaving))) {
        return start_session(connection);
    }
    if (guest && ahead < options_.queue && speaks_our_version(connection.hello)) {
        if (refused || ahead != 0) {
            connection.deadline = now() + kRoomLimit;  // for those that are leaving, once it is its turn
        }
        tell_place(connection, ahead + 1);
    } else if (expired && refused) {
        reply(connection, HelloStatus::busy, refused->why);
    } else if (expired) {
        connection.deadline = now() + kRoomLimit;  // there is a place, and another's turn
    }
}

void Listener::tell_place(Connection& connection, std::size_t place) {
    if (place == connection.place && now() < connection.tell_at) {
        return;
    }
    if (connection.place == 0) {
        log_line("receive: {} waits at place {} of {} in the queue", connection.peer, place, options_.queue);
        notice_dead_peer(connection.socket);
    }
    connection.place = static_cast<std::uint16_t>(place);
    connection.tell_at = now() + kTellEvery;
    migration::HelloReply said{HelloStatus::queued, migration::kProtocolVersion,
                               fmt::format("place {} of {} in the queue", place, options_.queue),
                               connection.place};
    if (!connection.send(said)) {
        connection.state = Connection::State::done;  // it does not read, or is gone
    }
}

std::optional<Listener::Refusal> Listener::refusal(Purpose purpose) const {
    const auto count = [&](auto&& which) {
        return static_cast<std::size_t>(std::count_if(sessions_.begin(), sessions_.end(), which));
    };
    if (purpose == Purpose::preflight) {
        const std::size_t others =
            count([](const auto& session) { return !is_incoming(session) && !session->over; });
        return others < kMaxPreflights
                   ? std::nullopt
                   : std::optional{Refusal{"too many others ask for a preflight now; ask again"}};
    }
    if (stopping_) {
        return Refusal{"it is ending", true};
    }
    if (received_) {
        return Refusal{"it was started with --once and has received its guest", true};
    }
    const std::size_t arriving =
        count([](const auto& session) { return is_incoming(session) && !session->owned && !session->over; });
    if (arriving >= options_.max_incoming) {
        return Refusal{fmt::format(
            "it is receiving {} of at most {} guests already, and {} of at most {} wait their turn; come "
            "again, or raise --max-incoming or --queue of `vmm receive`",
            arriving, options_.max_incoming, connections_.size() - pending(), options_.queue)};
    }
    return std::nullopt;
}

}  // namespace tools
