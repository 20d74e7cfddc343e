// The transport's part of every virtio device's state: virtio 1.2 section 4.2.2, version 2.
#pragma once

#include <vector>

#include "devices/virtio/queue_state.hpp"
#include "devices/virtio/spec.hpp"
#include "vmm/state/field.hpp"

namespace devices::virtio {

struct MmioState {
    static constexpr std::size_t kMaxQueues = 16;

    std::uint32_t status = 0;
    std::uint32_t device_features_select = 0;
    std::uint32_t driver_features_select = 0;
    std::uint64_t driver_features = 0;
    std::uint32_t queue_select = 0;
    std::uint32_t interrupt_status = 0;
    std::uint32_t config_generation = 0;
    std::vector<QueueState> queues;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.field("status", self.status);
        v.check(self.status <= 0xff, "status is a byte");
        v.field("device_features_select", self.device_features_select);
        v.field("driver_features_select", self.driver_features_select);
        v.field("driver_features", self.driver_features);
        v.field("queue_select", self.queue_select);
        v.field("interrupt_status", self.interrupt_status);
        v.check(self.interrupt_status <= (kInterruptUsedBuffer | kInterruptConfigChange),
                "interrupt_status has two bits");
        v.field("config_generation", self.config_generation);
        v.list("queues", self.queues, kMaxQueues);
    }
};

}  // namespace devices::virtio
