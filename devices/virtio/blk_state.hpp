// State of a virtio block device. Requests in flight are not part of it: a paused device has none.
#pragma once

#include "devices/virtio/mmio_state.hpp"

namespace devices::virtio {

struct BlkState {
    static constexpr vmm::StateId id{"virtio-blk", 1, 1};

    MmioState transport;
    std::uint64_t sectors = 0;
    bool read_only = false;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.part("transport", self.transport);
        v.field("sectors", self.sectors);
        v.field("read_only", self.read_only);
    }
};

}  // namespace devices::virtio
