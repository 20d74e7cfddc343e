// What a split virtqueue remembers between two requests, and what a driver has said of it.
#pragma once

#include <bit>
#include <cstdint>

namespace devices::virtio {

struct QueueState {
    static constexpr std::uint16_t kMaxSize = 1024;

    std::uint16_t size = 0;  // descriptors; 0: the driver has not said
    bool ready = false;
    std::uint64_t descriptors = 0;  // guest physical addresses, virtio 1.2 section 2.7: descriptor table,
    std::uint64_t available = 0;    // available ring (driver area),
    std::uint64_t used = 0;         // used ring (device area)
    std::uint16_t next_available = 0;
    std::uint16_t next_used = 0;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("size", self.size);
        v.check(self.size <= kMaxSize && (self.size == 0 || std::has_single_bit(self.size)),
                "size is 0 or a power of two up to 1024");
        v.field("ready", self.ready);
        v.check(!self.ready || self.size != 0, "a ready queue has a size");
        v.field("descriptors", self.descriptors);
        v.field("available", self.available);
        v.field("used", self.used);
        v.field("next_available", self.next_available);
        v.field("next_used", self.next_used);
    }
};

}  // namespace devices::virtio
