#include "vmm/kvm/guest_clock.hpp"

#include <cpuid.h>
#include <x86intrin.h>

#include <algorithm>

namespace vmm {

namespace {

__extension__ using Wide = unsigned __int128;

std::uint64_t between(std::uint64_t before, std::uint64_t after) {
    return before + (after - before) / 2;
}

}  // namespace

std::uint64_t host_tsc() {
    return __rdtsc();
}

Result<ClockReading> read_clock(const KvmVm& vm, const Clock& clock) {
    kvm_clock_data data{};
    const auto realtime_before = static_cast<std::uint64_t>(clock.realtime_ns());
    const std::uint64_t tsc_before = host_tsc();
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_GET_CLOCK), data));
    const std::uint64_t tsc_after = host_tsc();
    const auto realtime_after = static_cast<std::uint64_t>(clock.realtime_ns());

    ClockReading reading;
    reading.state.kvmclock_ns = data.clock;
    reading.state.realtime_ns =
        (data.flags & KVM_CLOCK_REALTIME) != 0 ? data.realtime : between(realtime_before, realtime_after);
    reading.host_tsc =
        (data.flags & KVM_CLOCK_HOST_TSC) != 0 ? data.host_tsc : between(tsc_before, tsc_after);
    return reading;
}

Result<ClockReading> restore_clock(const KvmVm& vm, const ClockState& saved, std::optional<Duration> elapsed,
                                   const Clock& clock) {
    kvm_clock_data data{};
    data.clock = saved.kvmclock_ns;
    if (elapsed) {
        data.clock += static_cast<std::uint64_t>(std::max(elapsed->count(), Duration::rep{0}));
    } else if (vm.capabilities().clock_realtime) {
        // KVM adds the time since, unless it is negative.
        data.flags = KVM_CLOCK_REALTIME;
        data.realtime = saved.realtime_ns;
    } else {
        const auto now = static_cast<std::uint64_t>(clock.realtime_ns());
        data.clock += now > saved.realtime_ns ? now - saved.realtime_ns : 0;
    }
    TRY(vm.fd().call_with(KVM_REQUEST(KVM_SET_CLOCK), data));
    return read_clock(vm, clock);
}

std::uint64_t advance_tsc(std::uint64_t tsc, std::uint32_t khz, std::uint64_t then_ns, std::uint64_t now_ns) {
    const bool forward = now_ns >= then_ns;
    const Wide ns = forward ? now_ns - then_ns : then_ns - now_ns;
    const auto ticks = static_cast<std::uint64_t>(ns * khz / 1'000'000);
    return forward ? tsc + ticks : tsc - ticks;
}

// Intel SDM volume 3, 26.6.5 (TSC multiplier); AMD APM volume 2, 15.30.5 (TSC ratio MSR).
unsigned host_tsc_ratio_bits() {
    static const unsigned bits = [] {
        constexpr unsigned kSvm = 1U << 2;
        unsigned eax = 0;
        unsigned ebx = 0;
        unsigned ecx = 0;
        unsigned edx = 0;
        return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & kSvm) != 0 ? 32U : 48U;
    }();
    return bits;
}

std::uint64_t unoffset_tsc(std::uint64_t tsc, std::uint32_t guest_khz, std::uint32_t host_khz,
                           unsigned ratio_bits) {
    if (ratio_bits == 0 || host_khz == 0 || tsc_frequencies_agree(guest_khz, host_khz)) {
        return tsc;
    }
    const Wide ratio = (Wide{guest_khz} << ratio_bits) / host_khz;
    return static_cast<std::uint64_t>(Wide{tsc} * ratio >> ratio_bits);
}

bool tsc_frequencies_agree(std::uint32_t guest_khz, std::uint32_t host_khz) {
    const std::uint64_t difference = guest_khz > host_khz ? guest_khz - host_khz : host_khz - guest_khz;
    return difference * 1'000'000 <= std::uint64_t{host_khz} * 250;
}

void normalise_for_comparison(ClockState& state) {
    state = {};
}

}  // namespace vmm
