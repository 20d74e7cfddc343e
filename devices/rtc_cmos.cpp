#include "devices/rtc_cmos.hpp"

#include <algorithm>

namespace devices {

using namespace rtc;

namespace {

constexpr std::int64_t kSecond_ns = 1'000'000'000;
// Data sheet, figure "update-in-progress": UIP is on for 244 us before an update and while it lasts.
constexpr std::int64_t kUpdate_ns = 244'000;

// Division that rounds down, also before 1970.
std::int64_t floor_seconds(std::int64_t ns) {
    return ns / kSecond_ns - (ns % kSecond_ns < 0 ? 1 : 0);
}

void put_le(CmosRam& ram, std::size_t at, std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) {
        ram[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
}

// The sizes that boot firmware leaves behind (Ralf Brown's Interrupt List, file CMOS.LST).
void put_memory(CmosRam& ram, const CmosMemory& memory) {
    constexpr std::uint64_t kKiB = 1024;
    constexpr std::uint64_t kMiB = 1024 * kKiB;
    const std::uint64_t above_1m = memory.below_4g > kMiB ? memory.below_4g - kMiB : 0;
    const std::uint64_t above_16m = memory.below_4g > 16 * kMiB ? memory.below_4g - 16 * kMiB : 0;
    put_le(ram, 0x15, std::min<std::uint64_t>(memory.below_4g / kKiB, 640), 2);
    put_le(ram, 0x17, std::min<std::uint64_t>(above_1m / kKiB, 0xffff), 2);
    put_le(ram, 0x30, std::min<std::uint64_t>(above_1m / kKiB, 0xffff), 2);
    put_le(ram, 0x34, std::min<std::uint64_t>(above_16m / (64 * kKiB), 0xffff), 2);
    put_le(ram, 0x5b, std::min<std::uint64_t>(memory.above_4g / (64 * kKiB), 0xffffff), 3);
}

}  // namespace

RtcCmos::RtcCmos(const vmm::Clock& clock, const CmosMemory& memory) : clock_(clock) {
    state_.ram[kA] = kADefault;
    state_.ram[kB] = kB24Hours;
    put_memory(state_.ram, memory);
    state_.flags_read = static_cast<std::uint64_t>(now());
}

void RtcCmos::read(std::uint64_t offset, std::span<std::byte> data) {
    const std::lock_guard lock{mutex_};
    for (std::byte& value : data) {
        // The index cannot be read back on a PC.
        value = offset++ == 1 ? std::byte{read_register(state_.index)} : std::byte{0xff};
    }
}

void RtcCmos::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::lock_guard lock{mutex_};
    for (const std::byte byte : data) {
        const auto value = std::to_integer<std::uint8_t>(byte);
        if (offset++ == 0) {
            state_.index = value & (kBytes - 1);  // bit 7 masks NMI, which nothing here raises
        } else {
            write_register(state_.index, value);
        }
    }
}

void RtcCmos::reset() {
    const std::lock_guard lock{mutex_};
    state_.index = 0;
    state_.ram[kB] = static_cast<std::uint8_t>(state_.ram[kB] & ~(kBInterrupts | kBSquareWave));
    state_.flags_read = static_cast<std::uint64_t>(now());
}

void RtcCmos::save(vmm::SnapshotWriter& snapshot) const {
    const std::lock_guard lock{mutex_};
    snapshot.put(0, state_);
}

vmm::Result<void> RtcCmos::restore(vmm::SnapshotReader& snapshot) {
    const RtcCmosState state = TRY(snapshot.take<RtcCmosState>(0));
    const std::lock_guard lock{mutex_};
    state_ = state;
    return {};
}

bool RtcCmos::frozen() const {
    return (state_.ram[kB] & kBSet) != 0;
}

std::int64_t RtcCmos::now() const {
    return floor_seconds(clock_.realtime_ns()) + state_.offset_seconds();
}

std::uint8_t RtcCmos::read_register(std::uint8_t reg) {
    if (is_time_register(reg) && !frozen()) {
        CmosRam time = state_.ram;
        put_time(time, now());
        return time[reg];
    }
    switch (reg) {
        case kA: {
            const std::int64_t ns = clock_.realtime_ns();
            const bool updating = !frozen() && ns - floor_seconds(ns) * kSecond_ns >= kSecond_ns - kUpdate_ns;
            return updating ? state_.ram[kA] | kAUpdating : state_.ram[kA];
        }
        case kC: {
            const auto seconds = static_cast<std::uint64_t>(now());
            const bool updated = !frozen() && seconds != state_.flags_read;
            state_.flags_read = seconds;
            return updated ? kCUpdateEnded : 0;
        }
        case kD:
            return kDValid;
        default:
            return state_.ram[reg];
    }
}

void RtcCmos::write_register(std::uint8_t reg, std::uint8_t value) {
    if (is_time_register(reg)) {
        write_time(reg, value);
        return;
    }
    switch (reg) {
        case kA:
            state_.ram[kA] = static_cast<std::uint8_t>(value & ~kAUpdating);
            break;
        case kB:
            write_b(value);
            break;
        case kC:
        case kD:
            break;
        default:
            state_.ram[reg] = value;
            break;
    }
}

// SET stops the clock at what it shows; taking SET away starts it from what is then in the registers. A time
// that is none is ignored and the old one goes on.
void RtcCmos::write_b(std::uint8_t value) {
    const bool was_frozen = frozen();
    state_.ram[kB] = value;
    if (!was_frozen && frozen()) {
        put_time(state_.ram, now());
    } else if (was_frozen && !frozen()) {
        set_time(state_.ram);
    }
}

void RtcCmos::write_time(std::uint8_t reg, std::uint8_t value) {
    if (frozen()) {
        state_.ram[reg] = value;
        return;
    }
    CmosRam time = state_.ram;
    put_time(time, now());
    time[reg] = value;
    set_time(time);
}

void RtcCmos::set_time(const CmosRam& ram) {
    const std::optional<std::int64_t> seconds = take_time(ram);
    if (seconds) {
        state_.offset = static_cast<std::uint64_t>(*seconds - floor_seconds(clock_.realtime_ns()));
    }
}

}  // namespace devices
