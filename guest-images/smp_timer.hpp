#pragma once

#include <stdint.h>

#include "deficit.hpp"
#include "runtime/clock.hpp"
#include "runtime/cpus.hpp"

namespace workload {

// The LAPIC timer of one CPU against its TSC, by the rule of deficit.hpp. Several vCPUs may share one CPU of
// the host, and some sleep, so a gap counts as a pause only from one period on: before that no interrupt can
// be lost, because one is kept pending. A change of the CPU's kvmclock page counts as a move, or, without
// kvmclock, every pause.
class CpuTimer {
  public:
    constexpr CpuTimer() = default;

    // On the CPU itself. `slack`: see TimerDeficit.
    void start(guest::Cpu& cpu, uint64_t lapic_hz, uint64_t hz, uint64_t slack);
    // A look at both clocks, many times a period. A violation ends the guest.
    void step();

    // From any CPU: the counters of now.
    uint64_t moves() const { return moves_; }
    uint64_t pauses() const { return watch_.pauses(); }
    uint64_t lost() const { return deficit_.lost(); }
    uint64_t extra() const { return deficit_.extra(); }
    uint64_t ticks() const { return deficit_.counted(); }

  private:
    void note_events();
    // The whole run, whose drift windows of half a second cannot see: what pauses, moves, slack and the host
    // slewing its clock by 500 ppm excuse.
    void judge_total() const;

    guest::Watch watch_;
    TimerDeficit deficit_{"lapic", guest::boot_cpu.timer_ticks};
    uint32_t cpu_ = 0;
    uint64_t slack_ = 0;
    uint64_t seen_pauses_ = 0;
    uint64_t seen_paused_ = 0;
    uint64_t moves_ = 0;
    Events this_window_;
    Events last_window_;
    uint64_t window_start_ = 0;
    uint32_t seen_version_ = 0;
    volatile guest::KvmclockPage kvmclock_ = {};
};

}  // namespace workload
