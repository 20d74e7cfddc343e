#include "vmm/base/unique_fd.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using vmm::UniqueFd;
using vmm::WakeFd;

namespace {

bool is_open(int fd) {
    return ::fcntl(fd, F_GETFD) >= 0;
}

UniqueFd open_null() {
    return UniqueFd{::open("/dev/null", O_RDWR | O_CLOEXEC)};
}

bool is_ready(const WakeFd& wake) {
    pollfd poll{wake.fd(), POLLIN, 0};
    return ::poll(&poll, 1, 0) == 1;
}

}  // namespace

TEST_CASE("a descriptor is closed exactly once, by its last owner", "[base]") {
    int number = -1;
    {
        UniqueFd first = open_null();
        REQUIRE(first);
        number = first.get();
        UniqueFd second{std::move(first)};
        CHECK(!first);  // NOLINT(bugprone-use-after-move): that it owns nothing is what is tested
        CHECK(second.get() == number);
        UniqueFd third = open_null();
        const int replaced = third.get();
        third = std::move(second);
        CHECK(!is_open(replaced));
        CHECK(third.get() == number);
        CHECK(is_open(number));
    }
    CHECK(!is_open(number));
}

TEST_CASE("a released descriptor stays open", "[base]") {
    UniqueFd owner = open_null();
    const int number = owner.release();
    CHECK(!owner);
    owner.reset();
    CHECK(is_open(number));
    UniqueFd{number}.reset();
    CHECK(!is_open(number));
}

TEST_CASE("a duplicate is independent and not inherited by a child", "[base]") {
    UniqueFd first = open_null();
    auto second = first.duplicate();
    REQUIRE(second);
    CHECK(second->get() != first.get());
    first.reset();
    CHECK(is_open(second->get()));
    CHECK((::fcntl(second->get(), F_GETFD) & FD_CLOEXEC) != 0);
    const auto none = first.duplicate();
    REQUIRE(!none);
    CHECK(none.error().sys_errno() == EBADF);
}

TEST_CASE("a wake is seen until it is cleared, and clearing without one does not block", "[base]") {
    auto wake = WakeFd::create();
    REQUIRE(wake);
    CHECK(!is_ready(*wake));
    wake->clear();
    wake->wake();
    wake->wake();
    CHECK(is_ready(*wake));
    wake->clear();
    CHECK(!is_ready(*wake));
}
