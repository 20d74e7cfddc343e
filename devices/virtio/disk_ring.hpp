// DiskRing: io_uring (io_uring(7)) on one disk image, with a registered file and registered buffers.
//
// What a ring is asked for passes by seccomp filters, so the ring itself is restricted: it does what a disk
// needs, to that file and to no other.
//
// Data goes through a few buffers of our own rather than straight to guest memory: registering that would pin
// and populate all of it, where an unused page costs nothing otherwise; a guest's buffers need no alignment;
// and a page becomes dirty when the data is copied to it, not when a transfer was begun.
#pragma once

#include <liburing.h>

#include <optional>

#include "vmm/base/mapping.hpp"
#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace devices::virtio {

// Used by one thread at a time.
class DiskRing {
  public:
    static constexpr unsigned kSlots = 16;
    static constexpr std::size_t kSlotBytes = 64 << 10;
    // More than a device has in flight: one for each request of its queue, and one for each slot.
    static constexpr unsigned kMaxOperations = 512;

    static vmm::Result<std::unique_ptr<DiskRing>> create(int file);
    // Makes the restricted ring. By itself, so that a test can ask such a ring for something else; the caller
    // ends it with io_uring_queue_exit().
    static vmm::Result<void> set_up(io_uring& ring, int file, std::span<const iovec> buffers, int event);
    ~DiskRing();
    DiskRing(const DiskRing&) = delete;
    DiskRing& operator=(const DiskRing&) = delete;

    // Readable when there may be completions.
    int event_fd() const { return event_.fd(); }

    std::optional<unsigned> take_slot();
    void free_slot(unsigned slot) { free_.push_back(slot); }
    std::span<std::byte> slot(unsigned slot) const {
        return buffers_.bytes().subspan(slot * kSlotBytes, kSlotBytes);
    }

    struct Operation {
        enum class Kind : std::uint8_t { read, write, write_through, flush, discard, write_zeroes };

        Kind kind = Kind::read;
        std::uint64_t offset = 0;  // bytes
        std::uint64_t size = 0;    // bytes
        unsigned slot = 0;         // of read and write: the data
        std::size_t slot_offset = 0;
        std::uint64_t token = 0;  // names it in its completion
    };
    // An operation for submit().
    void add(const Operation& operation);
    // Hands the operations to the kernel. If it has no memory for them now, event_fd() becomes readable:
    // submit again.
    void submit();

    struct Completion {
        std::uint64_t token = 0;
        int result = 0;  // bytes, or -errno
    };
    std::optional<Completion> next();
    void clear_event() const { event_.clear(); }

  private:
    DiskRing(vmm::Mapping buffers, vmm::WakeFd event)
        : buffers_(std::move(buffers)), event_(std::move(event)) {}

    io_uring ring_{};
    bool made_ = false;
    vmm::Mapping buffers_;
    vmm::WakeFd event_;
    std::vector<unsigned> free_;
};

}  // namespace devices::virtio
