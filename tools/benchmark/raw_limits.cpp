// raw_limits: what this machine can do at best, to measure a migration against.
//
//   raw_limits serve               prints its port; takes one TCP stream to its end, into prefaulted pages
//   raw_limits send HOST PORT SIZE  sends warm huge pages for two seconds, SIZE bytes at a time; prints
//                                  "tcp_mib_s=N"
//   raw_limits touch MIB           takes so much memory and gives it back
//   raw_limits memory              prints "memcpy_mib_s=N fault_4k_us=N fault_huge_us=N" (per page)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kBuffer = 64 * kMiB;
constexpr std::size_t kReadBytes = kMiB;
constexpr double kSeconds = 2;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

char* map(std::size_t size, int advice) {
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fail("mmap");
    }
    (void)::madvise(memory, size, advice);
    return static_cast<char*>(memory);
}

char* warm(std::size_t size) {
    char* memory = map(size, MADV_HUGEPAGE);
    for (std::size_t i = 0; i < size; i += 8) {
        const std::uint64_t value = (i + 1) * 0x9e3779b97f4a7c15U;
        std::memcpy(memory + i, &value, sizeof value);
    }
    return memory;
}

int serve() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t size = sizeof address;
    if (::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener, 1) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        fail("listen");
    }
    char* memory = warm(kBuffer);
    std::printf("%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
    const int fd = ::accept(listener, nullptr, nullptr);
    std::size_t at = 0;
    for (ssize_t got = 1; got > 0;) {
        got = ::recv(fd, memory + at, kReadBytes, MSG_WAITALL);
        at = (at + kReadBytes) % kBuffer;
    }
    return 0;
}

int send(const char* host, const char* port, std::size_t piece) {
    char* memory = warm(kBuffer);
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
    const int on = 1;
    if (::inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
        fail("connect");
    }
    const Clock::time_point begin = Clock::now();
    std::size_t sent = 0;
    while (seconds_since(begin) < kSeconds) {
        const ssize_t count =
            ::send(fd, memory + sent % kBuffer, std::min(piece, kBuffer - sent % kBuffer), 0);
        if (count < 0) {
            fail("send");
        }
        sent += static_cast<std::size_t>(count);
    }
    std::printf("tcp_mib_s=%.0f\n", static_cast<double>(sent) / kMiB / seconds_since(begin));
    return 0;
}

// Microseconds a page, the second time: the first touch of memory that the host itself has to find says
// nothing.
double fault_us(int advice, std::size_t page) {
    double us = 0;
    for (int turn = 0; turn < 2; ++turn) {
        char* memory = map(8 * kBuffer, advice);
        const Clock::time_point begin = Clock::now();
        for (std::size_t i = 0; i < 8 * kBuffer; i += page) {
            memory[i] = 1;
        }
        us = seconds_since(begin) * 1e6 / static_cast<double>(8 * kBuffer / page);
        ::munmap(memory, 8 * kBuffer);
    }
    return us;
}

// The machine may be a guest itself, which gives back memory that it does not use: what is about to be needed
// is fetched again first.
int touch(std::size_t size) {
    char* memory = map(size, MADV_HUGEPAGE);
    for (std::size_t i = 0; i < size; i += 4096) {
        memory[i] = 1;
    }
    return 0;
}

int memory() {
    char* from = warm(kBuffer);
    char* to = warm(kBuffer);
    const Clock::time_point begin = Clock::now();
    std::size_t copied = 0;
    while (seconds_since(begin) < kSeconds) {
        std::memcpy(to, from, kBuffer);
        copied += kBuffer;
    }
    const double rate = static_cast<double>(copied) / kMiB / seconds_since(begin);
    std::printf("memcpy_mib_s=%.0f fault_4k_us=%.2f fault_huge_us=%.1f\n", rate,
                fault_us(MADV_NOHUGEPAGE, 4096), fault_us(MADV_HUGEPAGE, 2 * kMiB));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    if (what == "serve") {
        return serve();
    }
    if (what == "send" && argc == 5) {
        return send(argv[2], argv[3], static_cast<std::size_t>(std::atol(argv[4])));
    }
    if (what == "memory") {
        return memory();
    }
    if (what == "touch" && argc == 3) {
        return touch(static_cast<std::size_t>(std::atol(argv[2])) * kMiB);
    }
    std::fprintf(stderr, "raw_limits: serve, send ADDRESS PORT WRITE, memory, or touch MIB\n");
    return 2;
}
