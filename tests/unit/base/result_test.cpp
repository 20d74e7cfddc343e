#include "vmm/base/result.hpp"

#include <catch2/catch.hpp>
#include <memory>

#include "tests/unit/base/death.hpp"
#include "vmm/base/check.hpp"

using vmm::Code;
using vmm::Result;

namespace {

Result<int> half(int value) {
    if (value % 2 != 0) {
        return vmm::fail(Code::invalid, "{} is odd", value);
    }
    return value / 2;
}

Result<void> positive(int value) {
    if (value <= 0) {
        return vmm::fail(Code::limit, "not positive");
    }
    return {};
}

Result<std::unique_ptr<int>> box(int value) {
    TRY(positive(value));
    const int halved = TRY(half(value).context("box"));
    return std::make_unique<int>(halved);
}

Result<int> unbox(int value) {
    const std::unique_ptr<int> boxed = TRY(box(value));
    return *boxed + TRY(half(4));
}

}  // namespace

TEST_CASE("TRY passes on the value, also one that only moves", "[base]") {
    const Result<int> result = unbox(10);
    REQUIRE(result);
    CHECK(*result == 7);
}

TEST_CASE("TRY returns the first error with its code and its place", "[base]") {
    const Result<int> odd = unbox(7);
    REQUIRE(!odd);
    CHECK(odd.error().code() == Code::invalid);
    CHECK(odd.error().text() == "box: 7 is odd");
    const Result<int> negative = unbox(-2);
    REQUIRE(!negative);
    CHECK(negative.error().code() == Code::limit);
}

TEST_CASE("context goes in front, outermost first, and leaves a value alone", "[base]") {
    const Result<int> wrong = half(3).context("inner").context("outer");
    REQUIRE(!wrong);
    CHECK(wrong.error().text() == "outer: inner: 3 is odd");
    const Result<int> right = half(4).context("inner");
    REQUIRE(right);
    CHECK(*right == 2);
    const Result<void> nothing = positive(0).context("void");
    REQUIRE(!nothing);
    CHECK(nothing.error().text() == "void: not positive");
    CHECK(positive(1).context("void"));
}

TEST_CASE("an error of the host keeps its number and says what it means", "[base]") {
    errno = ENOENT;
    const Result<void> result = vmm::fail_errno(Code::io, "open {}", "x");
    REQUIRE(!result);
    CHECK(result.error().sys_errno() == ENOENT);
    CHECK(result.error().text() == "open x: No such file or directory");
    const Result<void> placed = Result<void>{result}.context("disk[0]");
    REQUIRE(!placed);
    CHECK(placed.error().sys_errno() == ENOENT);
}

TEST_CASE("VERIFY aborts in every build", "[base]") {
    CHECK(tests::aborts([] { VERIFY(1 + 1 == 3); }));
    CHECK(!tests::aborts([] { VERIFY(1 + 1 == 2); }));
}
