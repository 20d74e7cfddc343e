#include "devices/virtio/tap.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstring>

#include "vmm/base/advice.hpp"

namespace devices::virtio {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;

Result<Tap> Tap::open(const std::string& name) {
    if (name.empty() || name.size() >= IFNAMSIZ) {
        return fail(Code::invalid, "tap \"{}\": a name of an interface has 1 to {} bytes", name,
                    IFNAMSIZ - 1);
    }
    // Else the kernel would make one, without an address or a bridge.
    if (::if_nametoindex(name.c_str()) == 0) {
        return advise(fail_errno(Code::io, "tap {}", name),
                      fmt::format("make it with `ip tuntap add {} mode tap vnet_hdr`", name));
    }
    vmm::UniqueFd fd{::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    if (!fd) {
        return advise(fail_errno(Code::io, "open /dev/net/tun"),
                      "load the module tun, and be allowed to open it");
    }
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), name.size());
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
        const char* remedy =
            errno == EBUSY   ? "another process uses it"
            : errno == EPERM ? "let `ip tuntap add` make it with `user` or `group`"
                             : "make it anew with `ip tuntap add .. mode tap vnet_hdr`, without multi_queue";
        return advise(fail_errno(Code::io, "tap {}", name), remedy);
    }
    int header = kHeaderBytes;
    if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header) != 0) {
        return advise(fail_errno(Code::io, "tap {}", name), "use a newer kernel");
    }
    Tap tap{std::move(fd)};
    tap.set_offload({});
    return tap;
}

void Tap::set_offload(Offload offload) const {
    const unsigned flags = (offload.checksum ? TUN_F_CSUM : 0U) | (offload.tcp4 ? TUN_F_TSO4 : 0U) |
                           (offload.tcp6 ? TUN_F_TSO6 : 0U);
    // A kernel that does not know an offload segments by itself: nothing is lost but speed.
    (void)::ioctl(fd_.get(), TUNSETOFFLOAD, static_cast<unsigned long>(flags));
}

Result<std::optional<std::size_t>> Tap::read(std::span<std::byte> frame) const {
    const ssize_t count = ::read(fd_.get(), frame.data(), frame.size());
    if (count == 0) {
        return fail(Code::closed, "the tap cannot be read any more: it was closed");
    }
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
        return fail_errno(Code::io, "the tap cannot be read any more");
    }
    if (count < static_cast<ssize_t>(kHeaderBytes)) {
        return std::nullopt;
    }
    return static_cast<std::size_t>(count);
}

void Tap::write(std::span<const std::byte> frame) const {
    (void)!::write(fd_.get(), frame.data(), frame.size());
}

}  // namespace devices::virtio
