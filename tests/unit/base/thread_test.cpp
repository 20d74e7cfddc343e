#include "vmm/base/thread.hpp"

#include <pthread.h>

#include <atomic>
#include <catch2/catch.hpp>

TEST_CASE("a thread bears its name, cut to what the host allows", "[base]") {
    std::array<char, 16> name{};
    auto thread = vmm::start_thread(
        "a name that is too long", [&] { ::pthread_getname_np(::pthread_self(), name.data(), name.size()); });
    REQUIRE(thread.has_value());
    thread->join();
    CHECK(std::string{name.data()} == "a name that is ");
}

TEST_CASE("a host without room for a thread is an error, not an exception", "[base]") {
    pthread_attr_t usual;
    pthread_attr_t huge;
    REQUIRE(::pthread_getattr_default_np(&usual) == 0);
    REQUIRE(::pthread_attr_init(&huge) == 0);
    REQUIRE(::pthread_attr_setstacksize(&huge, std::size_t{1} << 47) == 0);
    REQUIRE(::pthread_setattr_default_np(&huge) == 0);
    std::atomic<bool> called = false;
    const auto thread = vmm::start_thread("none", [&] { called = true; });
    REQUIRE(::pthread_setattr_default_np(&usual) == 0);
    REQUIRE_FALSE(thread.has_value());
    CHECK(thread.error().code() == vmm::Code::io);
    CHECK(thread.error().sys_errno() == EAGAIN);
    CHECK_FALSE(called);
}
