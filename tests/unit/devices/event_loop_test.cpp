#include "vmm/base/event_loop.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <thread>

using vmm::EventLoop;
using vmm::UniqueFd;

namespace {

struct PokePair {
    PokePair() {
        std::array<int, 2> fds{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()) == 0);
        near = UniqueFd{fds[0]};
        far = UniqueFd{fds[1]};
    }
    void poke() const { REQUIRE(::write(far.get(), "x", 1) == 1); }
    UniqueFd near;
    UniqueFd far;
};

std::unique_ptr<EventLoop> make_loop() {
    auto loop = EventLoop::create();
    REQUIRE(loop);
    return std::move(*loop);
}

}  // namespace

TEST_CASE("a handler runs while its descriptor is ready", "[devices]") {
    const auto loop = make_loop();
    const PokePair pair;
    int calls = 0;
    auto watch = loop->watch(pair.near.get(), EPOLLIN, [&](std::uint32_t events) {
        CHECK((events & EPOLLIN) != 0);
        if (++calls == 3) {
            loop->stop();
        }
    });
    REQUIRE(watch);
    pair.poke();
    REQUIRE(loop->run());
    CHECK(calls == 3);
}

TEST_CASE("posted functions run in order on the loop's thread, from any thread", "[devices]") {
    const auto loop = make_loop();
    std::vector<int> order;
    std::thread::id ran;
    std::thread poster{[&] {
        for (int i = 0; i < 100; ++i) {
            loop->post([&, i] { order.push_back(i); });
        }
        loop->post([&] {
            ran = std::this_thread::get_id();
            loop->stop();
            loop->post([&] { order.push_back(-1); });
        });
    }};
    REQUIRE(loop->run());
    poster.join();
    REQUIRE(order.size() == 100);
    CHECK(std::is_sorted(order.begin(), order.end()));
    CHECK(ran == std::this_thread::get_id());
}

TEST_CASE("a watch may end inside its own handler", "[devices]") {
    const auto loop = make_loop();
    const PokePair pair;
    int calls = 0;
    EventLoop::Watch watch;
    auto made = loop->watch(pair.near.get(), EPOLLIN, [&, keep = std::string(100, 'x')](std::uint32_t) {
        watch.reset();
        calls += static_cast<int>(keep.size());  // the handler itself is still there
        loop->post([&] { loop->stop(); });
    });
    REQUIRE(made);
    watch = std::move(*made);
    pair.poke();
    REQUIRE(loop->run());
    CHECK(calls == 100);
    CHECK_FALSE(watch);
}

TEST_CASE("a handler may end the watch of another descriptor that is ready too", "[devices]") {
    const auto loop = make_loop();
    const PokePair a;
    const PokePair b;
    int calls = 0;
    EventLoop::Watch watch_a;
    EventLoop::Watch watch_b;
    const auto first_wins = [&](std::uint32_t) {
        ++calls;
        watch_a.reset();
        watch_b.reset();
        loop->post([&] { loop->stop(); });
    };
    watch_a = std::move(*loop->watch(a.near.get(), EPOLLIN, first_wins));
    watch_b = std::move(*loop->watch(b.near.get(), EPOLLIN, first_wins));
    a.poke();
    b.poke();
    REQUIRE(loop->run());
    CHECK(calls == 1);
}

TEST_CASE("a watch without interest is silent even when the peer has gone", "[devices]") {
    const auto loop = make_loop();
    PokePair pair;
    int calls = 0;
    auto watch = loop->watch(pair.near.get(), 0, [&](std::uint32_t) {
        ++calls;
        loop->stop();
    });
    REQUIRE(watch);
    pair.poke();
    pair.far.reset();
    int calls_before = -1;
    std::thread later{[&] {
        std::this_thread::sleep_for(std::chrono::milliseconds{20});
        loop->post([&] {
            calls_before = calls;
            watch->set_interest(EPOLLIN);
        });
    }};
    REQUIRE(loop->run());
    later.join();
    CHECK(calls_before == 0);
    CHECK(calls == 1);
}

TEST_CASE("no handler runs once its watch has ended on another thread", "[devices]") {
    const auto loop = make_loop();
    std::thread runner{[&] { (void)loop->run(); }};
    for (int i = 0; i < 200; ++i) {
        const PokePair pair;
        std::atomic<bool> alive = true;
        std::atomic<bool> called = false;
        auto watch = loop->watch(pair.near.get(), EPOLLIN, [&](std::uint32_t) {
            called = true;
            if (!alive) {
                std::abort();
            }
        });
        pair.poke();
        while (!called) {
        }
        watch->reset();
        alive = false;
    }
    loop->stop();
    runner.join();
}

TEST_CASE("a regular file cannot be waited for", "[devices]") {
    const auto loop = make_loop();
    std::FILE* file = std::tmpfile();
    REQUIRE(file != nullptr);
    const auto watch = loop->watch(::fileno(file), EPOLLIN, [](std::uint32_t) {});
    std::fclose(file);
    REQUIRE_FALSE(watch);
    CHECK(watch.error().sys_errno() == EPERM);
}
