// Numbers of the virtio specification, version 1.2 (OASIS, 2022), that transport and devices share. Sections
// are those of that document.
#pragma once

#include <cstdint>

namespace devices::virtio {

// Device status field, 2.1.
inline constexpr std::uint32_t kStatusDriverOk = 4;
inline constexpr std::uint32_t kStatusFeaturesOk = 8;
inline constexpr std::uint32_t kStatusNeedsReset = 64;

// Reserved feature bits, 6.
inline constexpr std::uint64_t kFeatureIndirectDesc = std::uint64_t{1} << 28;
inline constexpr std::uint64_t kFeatureEventIdx = std::uint64_t{1} << 29;
inline constexpr std::uint64_t kFeatureVersion1 = std::uint64_t{1} << 32;

// Interrupt reasons, 4.2.2 (InterruptStatus).
inline constexpr std::uint32_t kInterruptUsedBuffer = 1;
inline constexpr std::uint32_t kInterruptConfigChange = 2;

// Device types, 5.
inline constexpr std::uint32_t kDeviceNet = 1;
inline constexpr std::uint32_t kDeviceBlk = 2;
inline constexpr std::uint32_t kDeviceConsole = 3;
inline constexpr std::uint32_t kDeviceRng = 4;

}  // namespace devices::virtio
