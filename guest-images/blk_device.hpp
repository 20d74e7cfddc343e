#pragma once

#include <stdint.h>

#include "runtime/splitmix.hpp"
#include "runtime/virtqueue.hpp"

namespace workload {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr uint64_t kBlockSectors = 8;
inline constexpr uint64_t kBlockBytes = kBlockSectors * kSectorBytes;

// Virtio 1.2 section 5.2.6.
enum class BlkType : uint32_t { read = 0, write = 1, flush = 4, get_id = 8, discard = 11, write_zeroes = 13 };
enum class BlkStatus : uint8_t { ok = 0, io_error = 1, unsupported = 2, none = 0xff };

// A virtio block device (section 5.2) with a fixed number of slots for requests, each with a buffer of a
// block.
class BlkDevice {
  public:
    static constexpr uint32_t kMaxSlots = 64;
    static constexpr uint32_t kMaxPieces = 4;

    constexpr BlkDevice() = default;

    void start(const guest::Parameters& parameters, uint32_t slots);

    uint64_t sectors() const { return sectors_; }
    // Requests that the queue has room for, whatever they are.
    uint32_t most_in_flight() const;
    bool read_only() const;
    bool can_flush() const;
    // Of one whole block, at its place.
    bool can_discard() const;
    bool can_write_zeroes() const;

    void* data(uint32_t slot) const { return slots_[slot].data; }

    // Makes a request available; the slot must be free. Reads and writes take `bytes` of its buffer, cut into
    // one to four pieces at random; the others bring what they need.
    void submit(uint32_t slot, BlkType type, uint64_t sector, uint32_t bytes = kBlockBytes);
    void notify() { queue_.notify(); }

    struct Completion {
        uint32_t slot;
        BlkStatus status;
    };
    bool take(Completion& completion);

    void check_patience(uint64_t patience) { queue_.check_patience(patience, true); }

    const guest::virtio::Device& device() const { return device_; }
    const guest::virtio::Queue& queue() const { return queue_; }

  private:
    struct Header {  // section 5.2.6
        uint32_t type;
        uint32_t reserved;
        uint64_t sector;
    };
    struct Range {  // of discard and write zeroes
        uint64_t sector;
        uint32_t sectors;
        uint32_t flags;
    };
    struct Slot {
        Header header;
        volatile BlkStatus status;
        void* data;
        uint32_t returned;  // bytes that the device must have written
    };

    uint32_t cut(const Slot& slot, uint32_t bytes, bool written_by_device, guest::virtio::Buffer* pieces);

    guest::virtio::Device device_;
    guest::virtio::Queue queue_;
    uint64_t sectors_ = 0;
    Slot* slots_ = nullptr;
    guest::SplitMix random_{1};
};

}  // namespace workload
