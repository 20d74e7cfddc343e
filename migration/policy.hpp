// decide(): when to stop copying. Pure: no clock, no socket; everything it knows is in its arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "vmm/base/clock.hpp"

namespace migration {

enum class OnStall : std::uint8_t {
    switch_over,  // pause anyway, if the prediction fits --max-pause
    abort,
};

struct Limits {
    vmm::Duration max_downtime = std::chrono::milliseconds{300};  // a limit, not a goal
    vmm::Duration max_pause = std::chrono::milliseconds{1200};    // past it the source gives up and resumes
    OnStall on_stall = OnStall::switch_over;
};

// max(1 s, 4 x max-downtime)
vmm::Duration default_max_pause(vmm::Duration max_downtime);

struct Round {
    std::uint32_t number = 0;
    vmm::Duration duration{};
    vmm::Duration link_time{};     // of it, what the link needs; 0: all of it. Less under --max-bandwidth
    std::uint64_t data_pages = 0;  // sent with their contents
    std::uint64_t zero_pages = 0;  // sent as zero, or zero from the start
    std::uint64_t unchanged_pages = 0;  // written, but equal to what the destination holds: not sent
    std::uint64_t bytes = 0;            // on the wire
    std::uint64_t owed_after = 0;       // pages written while the round ran
};

// What a pause costs apart from its last round, as measured in this session.
struct FixedCosts {
    vmm::Duration stop{};  // vCPUs, at the source, and their start at the destination
    vmm::Duration save{};
    vmm::Duration restore{};
    vmm::Duration round_trip{};
    std::optional<vmm::Duration> pass;  // over all memory, with hardly a page to send; no such round yet
    vmm::Duration verify{};             // --verify full, on both sides
    vmm::Duration storage{};            // what was written to disks while the pause began

    // Stop and save, the last pass, then state, Ready, Commit and Running: four one-way hops and the restore.
    vmm::Duration total() const {
        return stop + save + pass.value_or(vmm::Duration{}) + restore + verify + storage + 2 * round_trip;
    }
};

enum class Action : std::uint8_t { another_round, switch_over, give_up };

struct Verdict {
    Action action = Action::another_round;
    vmm::Duration predicted{};  // the whole pause, were it to begin now
    std::string_view why;
};

// Whether so many pages say what the link carries; fewer say more about wake-ups.
bool is_telling(const Round& round);

// Bytes of guest memory a second, as the rounds so far moved them; 0 when none moved enough to tell.
double send_rate(std::span<const Round> rounds);

// The whole pause: fixed costs and the owed pages at the measured rate.
vmm::Duration predict(std::uint64_t owed_pages, double rate, const FixedCosts& costs);

// `rounds` is not empty. Goes on while the prediction is above max_downtime and still shrinks; below it,
// while a round at least halves the prediction and the extra rounds cost at most max(120 ms, 10 % of the time
// so far).
Verdict decide(const Limits& limits, std::span<const Round> rounds, const FixedCosts& costs);

}  // namespace migration
