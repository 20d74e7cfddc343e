#pragma once

#include <stdint.h>

namespace guest {

// Finds the TSC frequency: kvmclock where KVM offers it, else PIT channel 2.
void start_clock();

uint64_t tsc_khz();
uint64_t tsc_from_us(uint64_t us);
uint64_t us_from_tsc(uint64_t ticks);
// In tenths of a microsecond, for Fields::tenths.
uint64_t tenths_of_us(uint64_t ticks);

// The frequency the LAPIC timer counts at (divide by 1), measured against the TSC in about 20 ms.
uint64_t measure_lapic_hz();

// Interrupts of the boot CPU's LAPIC timer from now on: a clock that stands still while the guest does.
void start_periodic_timer(uint64_t hz);

struct KvmclockReading {
    uint64_t nanoseconds;
    uint64_t tsc;   // the TSC value it was computed from
    bool monotone;  // PVCLOCK_TSC_STABLE_BIT: the host promises no step back
    uint32_t version;
};

// What the host keeps up to date for one vCPU: Linux Documentation/virt/kvm/x86/msr.rst,
// MSR_KVM_SYSTEM_TIME_NEW.
struct alignas(32) KvmclockPage {
    uint32_t version;
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad[2];
};

bool has_kvmclock();
// The boot CPU's.
KvmclockReading read_kvmclock();
// Only with has_kvmclock(); for the CPU that calls.
void enable_kvmclock(volatile KvmclockPage& page);

// Watches the TSC for gaps: a vCPU that was stopped, moved or not scheduled shows as a jump between
// two calls of beat(). The main loop calls it once an iteration, long jobs once a page.
class Watch {
  public:
    // Forgets all but the threshold.
    void start();
    void beat();
    // Gaps longer than this are counted as pauses.
    void set_pause_threshold(uint64_t ticks) { pause_threshold_ = ticks; }

    uint64_t now() const { return last_; }
    uint64_t elapsed() const { return last_ - start_; }
    uint64_t last_gap() const { return last_gap_; }
    uint64_t longest() const { return longest_; }
    uint64_t pauses() const { return pauses_; }
    uint64_t paused() const { return paused_; }
    uint64_t back_steps() const { return back_steps_; }
    // The longest gap since the previous call.
    uint64_t take_longest();

  private:
    uint64_t start_ = 0;
    uint64_t last_ = 0;
    uint64_t last_gap_ = 0;
    uint64_t longest_ = 0;
    uint64_t longest_since_taken_ = 0;
    uint64_t pause_threshold_ = UINT64_MAX;
    uint64_t pauses_ = 0;
    uint64_t paused_ = 0;
    uint64_t back_steps_ = 0;
};

Watch& watch();

}  // namespace guest
