// The virtio devices of a guest that comes: what its manifest names, joined with what the command line of
// `receive` has for them.
#pragma once

#include "devices/virtio/factory.hpp"
#include "migration/message.hpp"

namespace tools {

// The devices of the guest for which there is a host side here, each in its window.
std::vector<devices::virtio::Config> plan_devices(const migration::Manifest& manifest,
                                                  std::span<const devices::virtio::Config> ours);

// What a destination can offer that guest: the board's own devices, those of the plan as the host has them
// now, and those of ours that the guest has not. What cannot be opened is a reason.
std::vector<vmm::DeviceIdentity> offer_devices(const migration::Manifest& manifest,
                                               std::span<const devices::virtio::Config> ours,
                                               std::vector<migration::Reason>& reasons);

}  // namespace tools
