#include "migration/policy.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "vmm/guest/address.hpp"

using namespace migration;
using namespace std::chrono_literals;
using vmm::Duration;

namespace {

constexpr FixedCosts make_costs() {
    FixedCosts costs;
    costs.save = 200us;
    costs.restore = 200us;
    costs.round_trip = 100us;
    return costs;
}
constexpr FixedCosts kCosts = make_costs();

// A round that moved `pages` in `duration` and left `owed`.
Round round_of(std::uint64_t pages, Duration duration, std::uint64_t owed) {
    Round round;
    round.data_pages = pages;
    round.bytes = pages * 4096;
    round.duration = duration;
    round.owed_after = owed;
    return round;
}

// A guest that writes `dirty_rate` pages/s over `working_set` pages, moved over a link of `rate` pages/s.
struct SimulatedGuest {
    double rate;
    double dirty_rate;
    std::uint64_t pages;
    std::uint64_t working_set;

    struct Run {
        Verdict verdict;
        std::vector<Round> rounds;
        Duration total{};
    };
    Run run(const Limits& limits, std::size_t most_rounds = 100) const {
        Run run;
        std::uint64_t owed = pages;
        while (run.rounds.size() < most_rounds) {
            const double seconds = static_cast<double>(owed) / rate + 50e-6;
            const auto duration =
                std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
            const auto written = static_cast<std::uint64_t>(seconds * dirty_rate);
            const std::uint64_t after = std::min(written, working_set);
            run.rounds.push_back(round_of(owed, duration, after));
            run.total += duration;
            owed = after;
            run.verdict = decide(limits, run.rounds, kCosts);
            if (run.verdict.action != Action::another_round) {
                break;
            }
        }
        return run;
    }
};

}  // namespace

TEST_CASE("decide: switches over at once when nothing is owed", "[migration]") {
    const std::vector<Round> rounds{round_of(1000, 10ms, 0)};
    const Verdict verdict = decide({}, rounds, kCosts);
    CHECK(verdict.action == Action::switch_over);
    CHECK(verdict.predicted == kCosts.total());
}

TEST_CASE("decide: the prediction is fixed costs plus owed pages at the measured rate", "[migration]") {
    // 100,000 pages/s
    const std::vector<Round> rounds{round_of(10'000, 100ms, 5'000)};
    CHECK(send_rate(rounds) == Approx(100'000 * 4096.0));
    const Duration predicted = decide({}, rounds, kCosts).predicted;
    CHECK(vmm::to_ms(predicted) == Approx(50 + vmm::to_ms(kCosts.total())).epsilon(0.001));
}

TEST_CASE("decide: a round too small to tell does not set the rate", "[migration]") {
    std::vector<Round> rounds{round_of(10'000, 100ms, 10), round_of(10, 10ms, 3)};
    CHECK(send_rate(rounds) == Approx(100'000 * 4096.0));
    rounds.erase(rounds.begin());
    CHECK(send_rate(rounds) == 0);
    CHECK(predict(0, 0, kCosts) == kCosts.total());
}

TEST_CASE("decide: a prediction never overflows", "[migration]") {
    CHECK(predict(UINT64_MAX / 8192, 1, kCosts) > 1h - 1s);
    CHECK(predict(UINT64_MAX / 8192, 1, kCosts) < 1h + 1s);
}

TEST_CASE("decide: table", "[migration]") {
    const Limits limits;
    Limits abort_limits;
    abort_limits.on_stall = OnStall::abort;
    Limits tight;
    tight.max_downtime = 2ms;
    tight.max_pause = 5ms;
    struct Row {
        const char* name;
        Limits limits;
        std::vector<Round> rounds;
        Action action;
    };
    // All at 100,000 pages/s.
    const std::vector<Row> rows{
        {"first round, too much owed", limits, {round_of(100'000, 1s, 50'000)}, Action::another_round},
        {"first round, fits: another may halve it",
         limits,
         {round_of(100'000, 1s, 1'000)},
         Action::another_round},
        {"fits and halved",
         limits,
         {round_of(100'000, 1s, 1'000), round_of(1'000, 10ms, 100)},
         Action::another_round},
        {"fits and did not halve",
         limits,
         {round_of(100'000, 1s, 1'000), round_of(1'000, 10ms, 900)},
         Action::switch_over},
        {"fits, halves, but the extra time is spent",
         limits,
         {round_of(100'000, 1s, 20'000), round_of(20'000, 200ms, 9'000)},
         Action::switch_over},
        {"above the limit, shrinking",
         limits,
         {round_of(100'000, 1s, 90'000), round_of(90'000, 900ms, 80'000), round_of(80'000, 800ms, 60'000),
          round_of(60'000, 600ms, 50'000)},
         Action::another_round},
        {"stalled, switch, within max-pause",
         limits,
         {round_of(100'000, 1s, 50'000), round_of(50'000, 500ms, 50'000), round_of(50'000, 500ms, 50'000),
          round_of(50'000, 500ms, 50'000)},
         Action::switch_over},
        {"stalled, abort asked for",
         abort_limits,
         {round_of(100'000, 1s, 50'000), round_of(50'000, 500ms, 50'000), round_of(50'000, 500ms, 50'000),
          round_of(50'000, 500ms, 50'000)},
         Action::give_up},
        {"stalled above max-pause",
         tight,
         {round_of(100'000, 1s, 5'000), round_of(5'000, 50ms, 5'000), round_of(5'000, 50ms, 5'000),
          round_of(5'000, 50ms, 5'000)},
         Action::give_up},
    };
    for (const Row& row : rows) {
        INFO(row.name);
        CHECK(decide(row.limits, row.rounds, kCosts).action == row.action);
    }
}

TEST_CASE("decide: a simulated guest", "[migration]") {
    constexpr std::uint64_t gib = (std::uint64_t{1} << 30) / vmm::kPageSize;
    SECTION("idle: two rounds and a pause of the fixed costs") {
        const auto run = SimulatedGuest{250'000, 10, gib, 10}.run({});
        CHECK(run.verdict.action == Action::switch_over);
        CHECK(run.rounds.size() <= 3);
        CHECK(run.verdict.predicted < 1ms);
    }
    SECTION("moderate writer: far below the limit, because rounds halve it cheaply") {
        const auto run = SimulatedGuest{250'000, 20'000, gib, gib / 4}.run({});
        CHECK(run.verdict.action == Action::switch_over);
        CHECK(run.verdict.predicted < 10ms);
    }
    SECTION("writes faster than the link over a small set: stalls, and switches within max-pause") {
        const auto run = SimulatedGuest{250'000, 1'000'000, gib, 100'000}.run({});
        CHECK(run.verdict.action == Action::switch_over);
        CHECK(run.verdict.predicted > 300ms);
        CHECK(run.rounds.size() < 10);
    }
    SECTION("writes faster than the link over everything: gives up, with the guest running") {
        const auto run = SimulatedGuest{250'000, 1'000'000, 4 * gib, 4 * gib}.run({});
        CHECK(run.verdict.action == Action::give_up);
    }
    SECTION("every dirty rate ends") {
        for (double dirty = 0; dirty < 500'000; dirty += 5'000) {
            const auto run = SimulatedGuest{250'000, dirty, gib, gib / 2}.run({});
            INFO(dirty);
            CHECK(run.rounds.size() < 60);
            CHECK(run.verdict.action != Action::another_round);
        }
    }
}

TEST_CASE("a bandwidth limit slows the rounds, not the prediction of the pause", "[migration]") {
    // 1 GB/s on the link; the round slept for most of its second.
    Round limited = round_of(25'000, 1s, 10'000);
    CHECK(decide({}, std::vector{limited}, kCosts).predicted > 300ms);
    limited.link_time = 100ms;
    CHECK(send_rate(std::vector{limited}) == Approx(250'000 * 4096.0));
    CHECK(decide({}, std::vector{limited}, kCosts).predicted < 50ms);
}

TEST_CASE("hashing all memory afresh counts as part of the pause", "[migration]") {
    FixedCosts costs = kCosts;
    costs.verify = 200ms;
    const std::vector<Round> rounds{round_of(10'000, 100ms, 0)};
    CHECK(decide({}, rounds, costs).predicted == decide({}, rounds, kCosts).predicted + 200ms);
}

TEST_CASE("every part of the pause counts once, and the way to the destination and back twice",
          "[migration]") {
    FixedCosts costs;
    costs.stop = 1ms;
    costs.save = 2ms;
    costs.restore = 4ms;
    costs.round_trip = 100ms;
    CHECK(costs.total() == 207ms);
    costs.pass = 8ms;
    CHECK(costs.total() == 215ms);
    CHECK(predict(0, 0, costs) == 215ms);
}

TEST_CASE("default_max_pause is max(1 s, 4 x max-downtime)", "[migration]") {
    CHECK(default_max_pause(10ms) == Duration{1s});
    CHECK(default_max_pause(300ms) == Duration{1200ms});
}
