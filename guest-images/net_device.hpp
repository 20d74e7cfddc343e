#pragma once

#include <stddef.h>
#include <stdint.h>

#include "net_packet.hpp"
#include "runtime/virtqueue.hpp"

namespace workload {

// A virtio network device (section 5.1) with one pair of queues, and the control queue where it is needed.
class NetDevice {
  public:
    constexpr NetDevice() = default;

    // Parameters: `csum=0`, 1 to leave checksums to the device, `announce=1`, 0 not to be asked for it.
    void start(const guest::Parameters& parameters);

    const Mac& mac() const { return mac_; }

    struct Frame {
        uint32_t slot;
        uint8_t* data;
        size_t bytes;
        bool unfinished_checksum;  // the sum over the pseudo header is there, the rest left out
    };
    // The next frame received; it must be given back.
    bool receive(Frame& frame);
    void give_back(const Frame& frame);

    // A buffer for the next frame to send; nullptr: all are with the device.
    uint8_t* sending();
    // Sends what is in it. `checksum_at` > 0: the device has to finish the checksum that begins at
    // `sum_from`.
    void send(size_t bytes, size_t sum_from = 0, size_t checksum_at = 0);

    void notify();
    bool finishes_checksums() const;

    // The device wants its addresses announced (section 5.1.6.5.4), since the last call.
    bool wants_announcement();
    void confirm_announcement();

    // Frames that came without the number of their buffers, which is 1 (section 5.1.6.4.1); QEMU 7.2 leaves
    // it out.
    uint64_t uncounted() const { return uncounted_; }

    // As in Queue.
    void check_patience(uint64_t patience);
    uint32_t unsent() const { return send_queue_.in_flight(); }
    const guest::virtio::Device& device() const { return device_; }

  private:
    static constexpr uint32_t kMaxSlots = 64;

    struct [[gnu::packed]] Header {  // section 5.1.6
        uint8_t flags;
        uint8_t gso_type;
        uint16_t header_bytes;
        uint16_t gso_bytes;
        uint16_t checksum_start;
        uint16_t checksum_offset;
        uint16_t buffers;
    };
    struct Slot {
        Header header;
        uint8_t frame[2048 - sizeof(Header)];
    };

    void offer(uint32_t slot);
    void reclaim();

    guest::virtio::Device device_;
    guest::virtio::Queue receive_queue_;
    guest::virtio::Queue send_queue_;
    guest::virtio::Queue control_queue_;
    Mac mac_ = {};
    Slot* receive_slots_ = nullptr;
    Slot* send_slots_ = nullptr;
    uint32_t slots_ = 0;
    uint64_t sending_ = 0;  // a bit for each slot that the device has
    uint32_t next_ = 0;     // the slot that sending() gave
    uint64_t looked_at_config_ = 0;
    uint64_t uncounted_ = 0;
};

}  // namespace workload
