// VirtQueue: the device's side of a split virtqueue (virtio 1.2 section 2.7).
//
// The rings are shared with a guest that runs and may be hostile: every value is read once, into a copy that
// is checked and then used. What cannot be is an error of the driver's, for which the device asks to be reset
// (2.1.2).
#pragma once

#include <optional>

#include "devices/virtio/chain.hpp"
#include "devices/virtio/queue_state.hpp"

namespace devices::virtio {

// Used by one thread at a time.
class VirtQueue {
  public:
    // Pieces of one chain. Longer ones than the queue are not allowed (2.7.5.3.1), but Linux makes them of
    // indirect descriptors.
    static constexpr std::uint32_t kMaxPieces = 1024;

    VirtQueue(vmm::GuestMemory& memory, std::uint16_t max_size) : memory_(memory), max_size_(max_size) {}

    std::uint16_t max_size() const { return max_size_; }
    QueueState& state() { return state_; }
    const QueueState& state() const { return state_; }
    // Of the features that were accepted; before the queue is used.
    void set_features(std::uint64_t features);
    // As the driver made it, or as it was saved: all that is in the used ring has been signalled.
    void set_state(const QueueState& state) {
        state_ = state;
        signalled_ = state.next_used;
    }

    // The next request; nothing when there is none.
    vmm::Result<std::optional<Chain>> pop();
    // The last `count` requests have not been popped: they come again.
    void unpop(std::uint16_t count);
    // Gives a request back, with the number of bytes written to it.
    vmm::Result<void> push(std::uint16_t head, std::uint32_t written);
    // Asks for a notification when a request comes. True: one has come already, and there may be none for it.
    vmm::Result<bool> ask_for_notification();
    // Whether the driver wants an interrupt for what was pushed since it was asked last.
    vmm::Result<bool> wants_interrupt();

  private:
    // 2.7.5
    struct Descriptor {
        std::uint64_t address = 0;
        std::uint32_t size = 0;
        std::uint16_t flags = 0;
        std::uint16_t next = 0;
    };

    vmm::Result<std::uint16_t> available_index() const;
    vmm::Result<Descriptor> descriptor(vmm::Gpa table, std::uint32_t index) const;
    vmm::Result<void> walk(Chain& chain, vmm::Gpa table, std::uint32_t table_size, std::uint32_t first,
                           bool indirect) const;
    vmm::Result<void> add(Chain& chain, const Descriptor& descriptor) const;

    vmm::GuestMemory& memory_;
    const std::uint16_t max_size_;
    QueueState state_;
    bool indirect_ = false;
    bool event_idx_ = false;
    std::uint16_t signalled_ = 0;  // next_used when wants_interrupt() was asked last
};

}  // namespace devices::virtio
