#pragma once

#include <stdint.h>

#include "runtime/virtio.hpp"

namespace guest::virtio {

// A piece of memory lent to the device.
struct Buffer {
    uint64_t address;
    uint32_t bytes;
    bool written_by_device;
};

// The driver's side of a split virtqueue (section 2.7). What the device may not do (return a buffer that it
// does not have, or more bytes than it was given room for) ends the guest with FAIL.
class Queue {
  public:
    static constexpr uint32_t kMaxSize = 256;
    static constexpr uint32_t kMaxBuffers = 8;  // of one request

    constexpr Queue() = default;

    // Between negotiate() and start() of the device (section 4.2.3.2).
    void set_up(Device& device, uint32_t index);

    // Makes buffers available, those the device reads first; they stay lent until take() returns `token`.
    // With indirect descriptors one request takes one entry, else as many as it has buffers. False: no room.
    bool add(const Buffer* buffers, uint32_t count, uint32_t token);
    // Tells the device of what was added, if it wants to be told (section 2.7.10).
    void notify();

    struct Used {
        uint32_t token;
        uint32_t bytes;  // written by the device
    };
    // The next request that the device is done with. False: none yet; with interrupts in use also if none was
    // raised since this last came to the end.
    bool take(Used& used);

    // To be called all the time. Ends the guest when there is something to take that no interrupt has told
    // of, or, where the device owes an answer to what it has (`owed`), when none comes: for that many timer
    // interrupts of the boot CPU.
    void check_patience(uint64_t patience, bool owed);
    uint32_t in_flight() const { return in_flight_; }
    uint32_t size() const { return size_; }
    uint64_t notifications() const { return notifications_; }

  private:
    struct Descriptor {
        uint64_t address;
        uint32_t bytes;
        uint16_t flags;
        uint16_t next;
    };

    struct Request {
        uint32_t token;
        uint32_t entries;  // of the descriptor table; 0: the device does not have it
        uint64_t room;     // bytes it may write
    };

    void fill(Descriptor* table, uint32_t at, const Buffer* buffers, uint32_t count, bool by_free_list);
    uint16_t device_index() const;
    bool wants_notification(uint16_t from, uint16_t to) const;
    void ask_for_interrupt();
    void release(uint32_t head, uint32_t entries);

    Device* device_ = nullptr;
    uint32_t index_ = 0;
    uint32_t size_ = 0;
    Descriptor* descriptors_ = nullptr;
    Descriptor* indirect_ = nullptr;  // kMaxBuffers for each entry, when negotiated
    volatile uint16_t* available_ = nullptr;
    volatile uint16_t* used_ = nullptr;

    uint32_t first_free_ = 0;
    uint32_t free_ = 0;
    uint32_t in_flight_ = 0;
    uint16_t added_ = 0;
    uint16_t told_ = 0;
    uint16_t taken_ = 0;
    bool looked_ = false;  // every interrupt so far was followed by a look at the used ring
    uint64_t seen_interrupts_ = 0;
    uint16_t waits_for_ = 0;    // taken_, at waits_since_
    uint64_t waits_since_ = 0;  // timer interrupts
    uint64_t notifications_ = 0;
    Request requests_[kMaxSize] = {};
};

}  // namespace guest::virtio
