#pragma once

#include <stdint.h>

namespace guest {

inline constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;

// The output function of SplitMix64 (Steele, Lea, Flood 2014).
inline constexpr uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

class SplitMix {
  public:
    explicit constexpr SplitMix(uint64_t seed) : state_(seed) {}

    constexpr uint64_t next() { return mix(state_ += kGoldenRatio); }
    // Uniform in [0, bound), by the high half of a 128-bit product.
    constexpr uint64_t below(uint64_t bound) {
        return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
    }

  private:
    uint64_t state_;
};

}  // namespace guest
