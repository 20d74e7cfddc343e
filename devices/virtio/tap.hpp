// Tap: one end of a TAP interface of the host (Documentation/networking/tuntap.rst), with the virtio-net
// header in front of every frame, so that checksums and segmentation are left to whoever is last.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace devices::virtio {

class Tap {
  public:
    // The header: struct virtio_net_hdr_v1.
    static constexpr std::size_t kHeaderBytes = 12;
    // A header and the largest frame that segmentation leaves whole.
    static constexpr std::size_t kMaxFrame = kHeaderBytes + 14 + 65535;

    // The interface must be there, and no other process may use it.
    static vmm::Result<Tap> open(const std::string& name);

    // A descriptor that carries whole frames as a tap does.
    static Tap adopt(vmm::UniqueFd fd) { return Tap{std::move(fd)}; }

    int fd() const { return fd_.get(); }
    // What frames for the guest may leave undone: checksums, and segmentation of TCP over IPv4 and IPv6.
    struct Offload {
        bool checksum = false;
        bool tcp4 = false;
        bool tcp6 = false;
        friend bool operator==(const Offload&, const Offload&) = default;
    };
    void set_offload(Offload offload) const;
    // A frame for the guest; nothing when there is none now. An error: there never will be.
    vmm::Result<std::optional<std::size_t>> read(std::span<std::byte> frame) const;
    // A frame from the guest. One that the host does not take is lost, as on any wire.
    void write(std::span<const std::byte> frame) const;

  private:
    explicit Tap(vmm::UniqueFd fd) : fd_(std::move(fd)) {}

    vmm::UniqueFd fd_;
};

}  // namespace devices::virtio
