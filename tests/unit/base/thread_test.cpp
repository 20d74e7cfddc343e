#include "vmm/base/thread.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>

using vmm::ThreadRole;

TEST_CASE("a thread bears its name, cut to what the host allows", "[base]") {
    std::array<char, 16> name{};
    auto thread = vmm::start_thread("a name that is too long", ThreadRole::pages, [&] {
        ::pthread_getname_np(::pthread_self(), name.data(), name.size());
    });
    REQUIRE(thread.has_value());
    thread->join();
    CHECK(std::string{name.data()} == "a name that is ");
}

TEST_CASE("bulk work takes a smaller share, and only where it can be given back", "[base]") {
    int usual = 0;
    int bulk = 0;
    int after = 0;
    auto thread = vmm::start_thread("share", ThreadRole::pages, [&] {
        usual = ::getpriority(PRIO_PROCESS, 0);
        vmm::use_cpu_for(vmm::CpuUse::bulk);
        bulk = ::getpriority(PRIO_PROCESS, 0);
        vmm::use_cpu_for(vmm::CpuUse::service);
        after = ::getpriority(PRIO_PROCESS, 0);
    });
    REQUIRE(thread.has_value());
    thread->join();
    if (::geteuid() == 0) {
        CHECK(bulk == usual + 5);
    } else {
        CHECK((bulk == usual || bulk == usual + 5));
    }
    CHECK(after == usual);
}

TEST_CASE("a thread that leaves its CPU may use it again", "[base]") {
    cpu_set_t before;
    cpu_set_t after;
    REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
    // The scheduler may bring it back before it has looked: not every time.
    bool left = CPU_COUNT(&before) == 1;
    for (int attempt = 0; attempt < 100 && !left; ++attempt) {
        const int cpu = ::sched_getcpu();
        vmm::leave_cpu();
        left = ::sched_getcpu() != cpu;
    }
    CHECK(left);
    REQUIRE(::sched_getaffinity(0, sizeof after, &after) == 0);
    CHECK(CPU_EQUAL(&before, &after));
}

TEST_CASE("a host without room for a thread is an error, not an exception", "[base]") {
    pthread_attr_t usual;
    pthread_attr_t huge;
    REQUIRE(::pthread_getattr_default_np(&usual) == 0);
    REQUIRE(::pthread_attr_init(&huge) == 0);
    REQUIRE(::pthread_attr_setstacksize(&huge, std::size_t{1} << 47) == 0);
    REQUIRE(::pthread_setattr_default_np(&huge) == 0);
    std::atomic<bool> called = false;
    const auto thread = vmm::start_thread("none", ThreadRole::pages, [&] { called = true; });
    REQUIRE(::pthread_setattr_default_np(&usual) == 0);
    REQUIRE_FALSE(thread.has_value());
    CHECK(thread.error().code() == vmm::Code::io);
    CHECK(thread.error().sys_errno() == EAGAIN);
    CHECK_FALSE(called);
}

TEST_CASE("what is to be done on every thread is done on it first, with its role", "[base]") {
    std::vector<std::string> calls;
    std::thread::id where;
    vmm::on_thread_start([&](ThreadRole role) {
        where = std::this_thread::get_id();
        calls.push_back(role == ThreadRole::io ? "start of io" : "start of another");
    });
    std::thread::id own;
    auto thread = vmm::start_thread("first", ThreadRole::io, [&] {
        own = std::this_thread::get_id();
        calls.emplace_back("function");
    });
    REQUIRE(thread.has_value());
    thread->join();
    vmm::on_thread_start(nullptr);
    CHECK(calls == std::vector<std::string>{"start of io", "function"});
    CHECK(where == own);
}
