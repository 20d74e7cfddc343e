#include "runtime/clock.hpp"

#include "runtime/arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/interrupts.hpp"
#include "runtime/lapic.hpp"

namespace guest {
namespace {

constexpr uint32_t kMsrKvmSystemTime = 0x4b564d01;
constexpr uint32_t kFeatureClocksource2 = 1 << 3;
constexpr uint8_t kFlagTscStable = 1;

constinit volatile KvmclockPage kvmclock_page = {};
constinit bool kvmclock_enabled = false;
constinit uint64_t khz = 0;
constinit Watch the_watch;

bool write_system_time(volatile KvmclockPage& page) {
    return write_msr(kMsrKvmSystemTime, reinterpret_cast<uint64_t>(&page) | 1);
}

bool find_kvmclock() {
    const Cpuid signature = cpuid(0x40000000);
    const bool is_kvm =
        signature.ebx == 0x4b4d564b && signature.ecx == 0x564b4d56 && signature.edx == 0x4d;  // "KVMKVMKVM"
    if (!is_kvm || (cpuid(0x40000001).eax & kFeatureClocksource2) == 0) {
        return false;
    }
    return write_system_time(kvmclock_page) && kvmclock_page.tsc_to_system_mul != 0;
}

// A counter that counts down, and the TSC at about the moment it was read.
struct Sample {
    uint64_t tsc;
    uint32_t count;
};

// The tightest of several tries, so that a vCPU that loses the CPU in between does no harm.
template <typename Latch, typename Read>
Sample sample(Latch latch, Read read) {
    Sample best{};
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 8; ++i) {
        const uint64_t before = rdtsc();
        latch();
        const uint64_t width = rdtsc() - before;
        const uint32_t count = read();
        if (width < best_width) {
            best_width = width;
            best = {before + width / 2, count};
        }
    }
    return best;
}

// 0 when there is nothing to measure. The counter needs neither its output pin nor port 0x61 to be wired,
// only to count.
uint64_t measure_khz_with_pit() {
    constexpr uint32_t kWanted = 48000;  // about 40 ms of the 55 ms that 16 bits hold
    out8(0x61, static_cast<uint8_t>((in8(0x61) & ~2) | 1));
    out8(0x43, 0xb0);  // channel 2, mode 0
    out8(0x42, 0xff);
    out8(0x42, 0xff);
    auto latch = [] { out8(0x43, 0x80); };
    auto read = [] {
        const uint32_t low = in8(0x42);
        return low | uint32_t{in8(0x42)} << 8;
    };
    const Sample first = sample(latch, read);
    constexpr uint64_t kPatience = 1 << 16;
    for (uint64_t i = 0; i < kPatience; ++i) {
        const Sample last = sample(latch, read);
        if (last.count < first.count && first.count - last.count >= kWanted) {
            return scale(last.tsc - first.tsc, kPitHz, first.count - last.count) / 1000;
        }
        if (last.count > first.count) {
            break;  // wrapped: stopped for too long, or no PIT at all
        }
    }
    return 0;
}

// A pause of more than 55 ms in the middle spoils a measurement unseen; two that agree are good.
uint64_t agreed_khz() {
    uint64_t previous = 0;
    for (int attempt = 0; attempt < 20; ++attempt) {
        const uint64_t measured = measure_khz_with_pit();
        const uint64_t difference = measured > previous ? measured - previous : previous - measured;
        if (measured != 0 && difference <= measured / 2000) {
            return measured;
        }
        previous = measured;
    }
    fail(Fields().text("reason", "no_tsc_frequency"));
}

}  // namespace

void start_clock() {
    kvmclock_enabled = find_kvmclock();
    if (kvmclock_enabled) {
        // nanoseconds = (ticks << shift) * mul >> 32, solved for one millisecond.
        const uint64_t unshifted = (uint64_t{1000000} << 32) / kvmclock_page.tsc_to_system_mul;
        const int8_t shift = kvmclock_page.tsc_shift;
        khz = shift < 0 ? unshifted << -shift : unshifted >> shift;
    } else {
        khz = agreed_khz();
    }
}

uint64_t tsc_khz() {
    return khz;
}

uint64_t tsc_from_us(uint64_t us) {
    return us * khz / 1000;
}

uint64_t us_from_tsc(uint64_t ticks) {
    return tenths_of_us(ticks) / 10;
}

uint64_t tenths_of_us(uint64_t ticks) {
    return scale(ticks, 10000, khz);
}

uint64_t measure_lapic_hz() {
    set_lapic_timer_mode(TimerMode::one_shot);
    arm_lapic_timer(UINT32_MAX);
    constinit static uint32_t count = 0;
    auto latch = [] { count = lapic_timer_count(); };
    auto read = [] { return count; };
    const Sample first = sample(latch, read);
    const uint64_t until = first.tsc + tsc_from_us(20000);
    while (rdtsc() < until) {
    }
    const Sample last = sample(latch, read);
    arm_lapic_timer(0);
    if (last.count >= first.count) {
        fail(Fields().text("reason", "lapic_timer_does_not_count"));
    }
    const uint64_t hz = scale(first.count - last.count, khz * 1000, last.tsc - first.tsc);
    // KVM and QEMU count nanoseconds; within the error of the measurement it is exactly that.
    constexpr uint64_t kNanosecondHz = 1000000000;
    constexpr uint64_t kError = kNanosecondHz / 500;
    return hz > kNanosecondHz - kError && hz < kNanosecondHz + kError ? kNanosecondHz : hz;
}

void start_periodic_timer(uint64_t hz) {
    const uint64_t lapic_hz = measure_lapic_hz();
    set_lapic_timer_mode(TimerMode::periodic);
    arm_lapic_timer(static_cast<uint32_t>(lapic_hz / hz));
}

bool has_kvmclock() {
    return kvmclock_enabled;
}

void enable_kvmclock(volatile KvmclockPage& page) {
    write_system_time(page);
}

KvmclockReading read_kvmclock() {
    for (;;) {
        const uint32_t version = kvmclock_page.version;
        const uint64_t tsc = rdtsc();
        const uint64_t delta = tsc - kvmclock_page.tsc_timestamp;
        const int8_t shift = kvmclock_page.tsc_shift;
        const unsigned __int128 shifted = shift < 0 ? delta >> -shift : delta << shift;
        const uint64_t nanoseconds = kvmclock_page.system_time +
                                     static_cast<uint64_t>(shifted * kvmclock_page.tsc_to_system_mul >> 32);
        const bool monotone = (kvmclock_page.flags & kFlagTscStable) != 0;
        if ((version & 1) == 0 && version == kvmclock_page.version) {
            return {nanoseconds, tsc, monotone, version};
        }
    }
}

void Watch::start() {
    const uint64_t threshold = pause_threshold_;
    *this = {};
    pause_threshold_ = threshold;
    start_ = last_ = rdtsc();
}

void Watch::beat() {
    const uint64_t now = rdtsc();
    if (now < last_) {
        ++back_steps_;
        last_ = now;
        return;
    }
    last_gap_ = now - last_;
    last_ = now;
    if (last_gap_ > longest_since_taken_) {
        longest_since_taken_ = last_gap_;
        longest_ = last_gap_ > longest_ ? last_gap_ : longest_;
    }
    if (last_gap_ > pause_threshold_) {
        ++pauses_;
        paused_ += last_gap_;
    }
}

uint64_t Watch::take_longest() {
    const uint64_t longest = longest_since_taken_;
    longest_since_taken_ = 0;
    return longest;
}

Watch& watch() {
    return the_watch;
}

}  // namespace guest
