#include "vmm/guest/dirty.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <thread>

#include "tests/unit/base/death.hpp"

using vmm::Bitmap;
using vmm::Code;
using vmm::DeviceWriteTracker;
using vmm::DirtyTracker;
using vmm::PageRange;
using vmm::Result;
using vmm::UnionTracker;

namespace {

// Writes down what it is asked, finds one page dirty, and refuses what it is told to refuse.
class FakeTracker final : public DirtyTracker {
  public:
    FakeTracker(std::string& log, char name, std::size_t page, std::string refuses = "")
        : log_(log), name_(name), page_(page), refuses_(std::move(refuses)) {}

    Result<void> start() override { return note("start"); }
    Result<void> collect(Bitmap& dirty) override {
        dirty.set(page_);
        return note("collect");
    }
    Result<void> rearm(PageRange range) override {
        CHECK(range == PageRange{64, 64});
        return note("rearm");
    }
    Result<void> stop() override { return note("stop"); }

  private:
    Result<void> note(const std::string& what) {
        log_ += what + name_ + ' ';
        if (what == refuses_) {
            return vmm::fail(Code::kvm, "{}{} refused", what, name_);
        }
        return {};
    }

    std::string& log_;
    char name_;
    std::size_t page_;
    std::string refuses_;
};

}  // namespace

TEST_CASE("what was marked before start is not reported: the caller owes every page", "[guest]") {
    DeviceWriteTracker tracker{200};
    tracker.mark({5, 100});
    REQUIRE(tracker.start());
    Bitmap dirty{200};
    REQUIRE(tracker.collect(dirty));
    CHECK(dirty.count() == 0);
    tracker.mark({199, 1});
    REQUIRE(tracker.stop());
    REQUIRE(tracker.start());
    REQUIRE(tracker.collect(dirty));
    CHECK(dirty.count() == 0);
}

TEST_CASE("collect adds marked pages once, and never removes a bit of the caller", "[guest]") {
    DeviceWriteTracker tracker{130};
    REQUIRE(tracker.start());
    tracker.mark({62, 4});
    tracker.mark({129, 1});
    tracker.mark({7, 0});
    Bitmap dirty{130};
    dirty.set(0);
    REQUIRE(tracker.collect(dirty));
    CHECK(dirty.count() == 6);
    CHECK((dirty.test(0) && dirty.test(62) && dirty.test(65) && dirty.test(129)));
    Bitmap again{130};
    REQUIRE(tracker.collect(again));
    CHECK(again.count() == 0);
}

TEST_CASE("a page outside of the tracker, or a bitmap of another size, aborts", "[guest]") {
    DeviceWriteTracker tracker{130};
    CHECK(tests::aborts([&] { tracker.mark({130, 1}); }));
    CHECK(tests::aborts([&] { tracker.mark({0, ~std::uint64_t{0}}); }));
    CHECK(tests::aborts([&] { tracker.mark({~std::uint64_t{0}, 2}); }));
    Bitmap shorter{128};
    CHECK(tests::aborts([&] { (void)tracker.collect(shorter); }));
}

TEST_CASE("no mark is lost while another thread collects", "[guest]") {
    constexpr std::size_t kPages = 8 * 64;
    constexpr int kRounds = 2000;
    DeviceWriteTracker tracker{kPages};
    REQUIRE(tracker.start());
    // What a write leaves in memory: the count must be visible to whoever collects the mark that follows it.
    std::vector<std::uint32_t> memory(kPages);
    std::vector<std::uint32_t> seen(kPages);
    std::atomic<int> running = 2;
    const auto write = [&](std::size_t first) {
        for (int round = 1; round <= kRounds; ++round) {
            for (std::size_t page = first; page < kPages; page += 2) {
                // Each page has one writer, but each word of the tracker has two.
                std::atomic_ref{memory[page]}.store(static_cast<std::uint32_t>(round),
                                                    std::memory_order_relaxed);
                tracker.mark({page, 1});
            }
        }
        running.fetch_sub(1);
    };
    std::thread even{write, 0};
    std::thread odd{write, 1};
    const auto look = [&] {
        Bitmap found{kPages};
        const bool ok = tracker.collect(found).has_value();
        found.for_each_run(0, kPages, [&](std::size_t first, std::size_t count) {
            for (std::size_t page = first; page < first + count; ++page) {
                seen[page] = std::atomic_ref{memory[page]}.load(std::memory_order_relaxed);
            }
        });
        return ok;
    };
    bool ok = true;
    while (running.load() != 0) {
        ok = look() && ok;
    }
    even.join();
    odd.join();
    ok = look() && ok;
    CHECK(ok);
    CHECK(seen == std::vector<std::uint32_t>(kPages, kRounds));
}

TEST_CASE("the union asks every member, and joins what they found", "[guest]") {
    std::string log;
    FakeTracker a{log, 'a', 3};
    FakeTracker b{log, 'b', 70};
    FakeTracker c{log, 'c', 127};
    UnionTracker all{{&a, &b, &c}};
    REQUIRE(all.start());
    Bitmap dirty{128};
    dirty.set(1);
    REQUIRE(all.collect(dirty));
    CHECK(dirty.count() == 4);
    CHECK((dirty.test(1) && dirty.test(3) && dirty.test(70) && dirty.test(127)));
    REQUIRE(all.rearm({64, 64}));
    REQUIRE(all.stop());
    CHECK(log == "starta startb startc collecta collectb collectc rearma rearmb rearmc stopa stopb stopc ");
}

TEST_CASE("a member that does not start stops those that did", "[guest]") {
    std::string log;
    FakeTracker a{log, 'a', 0};
    FakeTracker b{log, 'b', 0};
    FakeTracker c{log, 'c', 0, "start"};
    UnionTracker all{{&a, &b, &c}};
    const auto started = all.start();
    REQUIRE(!started);
    CHECK(started.error().text() == "startc refused");
    CHECK(log == "starta startb startc stopb stopa ");
}

TEST_CASE("a member that fails to collect or rearm fails the union, keeping the pages found", "[guest]") {
    std::string log;
    FakeTracker a{log, 'a', 9};
    FakeTracker b{log, 'b', 9, "collect"};
    FakeTracker c{log, 'c', 9, "rearm"};
    Bitmap dirty{128};
    CHECK(!UnionTracker{{&a, &b}}.collect(dirty));
    CHECK(dirty.test(9));
    CHECK(!UnionTracker{{&a, &c}}.rearm({64, 64}));
}

TEST_CASE("a member that fails to stop does not keep the others running", "[guest]") {
    std::string log;
    FakeTracker a{log, 'a', 0, "stop"};
    FakeTracker b{log, 'b', 0, "stop"};
    FakeTracker c{log, 'c', 0};
    const auto stopped = UnionTracker{{&a, &b, &c}}.stop();
    REQUIRE(!stopped);
    CHECK(stopped.error().text() == "stopa refused");
    CHECK(log == "stopa stopb stopc ");
}
