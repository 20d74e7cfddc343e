// observer: what somebody outside sees of a guest that moves.
//
//   observer SOCKET...
//
// Connects to the serial ports of a guest as they appear (Unix sockets, one for each host the guest may be
// on), each served by a blocking thread. A guest with `beat_hz` sends BEL (7) as often: each is stamped with
// CLOCK_MONOTONIC as it is read, and taken out; what remains goes to standard output, line by line. A line of
// standard input is one of
//
//   to N TEXT   sends TEXT and a line feed to the guest on the N-th socket (from 0)
//   connect N   connects to it, waiting until it is there; answers "!connected N"
//   beats       answers "!beats N:T...": when beats came since the last `window`, in us, and on which socket
//   window      answers "!window beats=N longest_us=T median_us=T p95_us=T from_us=T": the gaps between
//               beats, on whatever socket, that ended since the last `window`, and when the longest began
//   resolution  answers "!resolution median_us=T p95_us=T": what a blocked thread takes to wake and to read
//               the clock, from a hundred trials. The period of the beats comes on top.
//
// Times are of CLOCK_MONOTONIC. Its threads have real-time priority where that is allowed: what is observed
// must not delay the observer.
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr char kBeat = '\a';

double us(Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
}

class Beats {
  public:
    void stamp(std::size_t socket, Clock::time_point now, std::size_t count) {
        const std::lock_guard lock{mutex_};
        if (last_ != Clock::time_point{}) {
            gaps_.push_back({now - last_, last_});
        }
        last_ = now;
        count_ += count;
        stamps_.insert(stamps_.end(), count, {socket, now});
    }
    void list() {
        const std::lock_guard lock{mutex_};
        std::printf("!beats");
        for (const auto& [socket, stamp] : stamps_) {
            std::printf(" %zu:%.0f", socket, us(stamp.time_since_epoch()));
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    void report() {
        std::vector<Gap> gaps;
        std::size_t count = 0;
        {
            const std::lock_guard lock{mutex_};
            gaps.swap(gaps_);
            stamps_.clear();
            std::swap(count, count_);
        }
        std::sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.length < b.length; });
        const auto at = [&](double share) {
            return gaps.empty()
                       ? Gap{}
                       : gaps[static_cast<std::size_t>(share * static_cast<double>(gaps.size() - 1))];
        };
        std::printf("!window beats=%zu longest_us=%.1f median_us=%.1f p95_us=%.1f from_us=%.1f\n", count,
                    us(at(1).length), us(at(0.5).length), us(at(0.95).length),
                    us(at(1).begin.time_since_epoch()));
        std::fflush(stdout);
    }

  private:
    struct Gap {
        Clock::duration length{};
        Clock::time_point begin;
    };

    std::mutex mutex_;
    Clock::time_point last_;
    std::vector<Gap> gaps_;
    std::vector<std::pair<std::size_t, Clock::time_point>> stamps_;
    std::size_t count_ = 0;
};

void report_resolution() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        std::perror("socketpair");
        std::_Exit(1);
    }
    std::vector<double> delays;
    std::thread reader{[&] {
        Clock::time_point sent;
        while (::read(ends[1], &sent, sizeof sent) == sizeof sent) {
            delays.push_back(us(Clock::now() - sent));
        }
    }};
    for (int trial = 0; trial < 100; ++trial) {
        std::this_thread::sleep_for(std::chrono::milliseconds{1});  // it blocks again
        const Clock::time_point now = Clock::now();
        (void)::send(ends[0], &now, sizeof now, MSG_NOSIGNAL);
    }
    ::close(ends[0]);
    reader.join();
    ::close(ends[1]);
    std::sort(delays.begin(), delays.end());
    std::printf("!resolution median_us=%.1f p95_us=%.1f\n", delays[delays.size() / 2],
                delays[delays.size() * 95 / 100]);
    std::fflush(stdout);
}

int connect_to(const char* path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    for (;;) {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
            return fd;
        }
        ::close(fd);
        std::this_thread::sleep_for(std::chrono::microseconds{500});
    }
}

// To the end of the connection.
void serve(std::size_t socket, int fd, Beats& beats, std::mutex& output) {
    std::array<char, 4096> buffer{};
    std::string line;
    for (;;) {
        const ssize_t size = ::read(fd, buffer.data(), buffer.size());
        const Clock::time_point now = Clock::now();
        if (size <= 0) {
            return;
        }
        std::size_t count = 0;
        for (const char c : std::string_view{buffer.data(), static_cast<std::size_t>(size)}) {
            if (c == kBeat) {
                ++count;
            } else if (c == '\n') {
                const std::lock_guard lock{output};
                std::printf("%s\n", line.c_str());
                std::fflush(stdout);
                line.clear();
            } else if (c != '\r') {
                line += c;
            }
        }
        if (count != 0) {
            beats.stamp(socket, now, count);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const sched_param lowest{1};
    (void)::sched_setscheduler(0, SCHED_FIFO, &lowest);
    Beats beats;
    std::mutex output;
    std::vector<int> sockets(static_cast<std::size_t>(argc), -1);
    for (std::string line; std::getline(std::cin, line);) {
        int number = 0;
        int begin = 0;
        if (line == "window") {
            const std::lock_guard lock{output};
            beats.report();
        } else if (line == "beats") {
            const std::lock_guard lock{output};
            beats.list();
        } else if (line == "resolution") {
            const std::lock_guard lock{output};
            report_resolution();
        } else if (std::sscanf(line.c_str(), "connect %d", &number) == 1 && number >= 0 &&
                   number + 1 < argc) {
            const int fd = connect_to(argv[number + 1]);
            const auto socket = static_cast<std::size_t>(number);
            sockets[socket] = fd;
            std::thread{[=, &beats, &output] { serve(socket, fd, beats, output); }}.detach();
            const std::lock_guard lock{output};
            std::printf("!connected %d\n", number);
            std::fflush(stdout);
        } else if (std::sscanf(line.c_str(), "to %d %n", &number, &begin) == 1 && number >= 0 &&
                   number + 1 < argc) {
            const std::string text = line.substr(static_cast<std::size_t>(begin)) + "\n";
            (void)::send(sockets[static_cast<std::size_t>(number)], text.data(), text.size(), MSG_NOSIGNAL);
        }
    }
    std::_Exit(0);  // threads may be in read(2)
}
