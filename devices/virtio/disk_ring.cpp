#include "devices/virtio/disk_ring.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "vmm/base/advice.hpp"
#include "vmm/base/check.hpp"

namespace devices::virtio {

using vmm::Code;
using vmm::Result;

namespace {

constexpr unsigned kFile = 0;  // among the registered ones

Result<void> check(int result, const char* what, const char* remedy = "use Linux 5.15 or later") {
    if (result < 0) {
        return advise(vmm::Failure{vmm::Error::from_errno(Code::io, what, -result)}, remedy);
    }
    return {};
}

// liburing 2.3 declares functions for the two requests, and its shared library has neither.
int register_with(const io_uring& ring, unsigned request,
                  std::span<const io_uring_restriction> restrictions) {
    const long result = ::syscall(SYS_io_uring_register, ring.ring_fd, request, restrictions.data(),
                                  static_cast<unsigned>(restrictions.size()));
    return result < 0 ? -errno : 0;
}

io_uring_restriction allow(std::uint8_t operation) {
    io_uring_restriction restriction{};
    restriction.opcode = IORING_RESTRICTION_SQE_OP;
    restriction.sqe_op = operation;
    return restriction;
}

// io_uring_register(2), IORING_REGISTER_RESTRICTIONS: from IORING_REGISTER_ENABLE_RINGS on nothing else may
// be submitted, and nothing registered.
Result<void> restrict(io_uring& ring) {
    io_uring_restriction registered_only{};
    registered_only.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
    registered_only.sqe_flags = IOSQE_FIXED_FILE;
    const std::array restrictions{registered_only, allow(IORING_OP_READ_FIXED), allow(IORING_OP_WRITE_FIXED),
                                  allow(IORING_OP_FSYNC), allow(IORING_OP_FALLOCATE)};
    return check(register_with(ring, IORING_REGISTER_RESTRICTIONS, restrictions), "restrict io_uring");
}

Result<void> prepare(io_uring& ring, int file, std::span<const iovec> buffers, int event) {
    TRY(check(::io_uring_register_files(&ring, &file, 1), "register the image with io_uring"));
    TRY(check(::io_uring_register_buffers(&ring, buffers.data(), static_cast<unsigned>(buffers.size())),
              "register buffers with io_uring",
              "raise the limit on locked memory (ulimit -l) to 2 MiB for each disk"));
    TRY(check(::io_uring_register_eventfd(&ring, event), "register an event with io_uring"));
    TRY(restrict(ring));
    return check(register_with(ring, IORING_REGISTER_ENABLE_RINGS, {}), "enable io_uring");
}

}  // namespace

Result<std::unique_ptr<DiskRing>> DiskRing::create(int file) {
    std::unique_ptr<DiskRing> ring{new DiskRing{
        TRY(vmm::Mapping::anonymous(kSlots * kSlotBytes, vmm::Backing::small)), TRY(vmm::WakeFd::create())}};
    std::array<iovec, kSlots> buffers{};
    for (unsigned i = 0; i < kSlots; ++i) {
        buffers[i] = {ring->slot(i).data(), kSlotBytes};
        ring->free_.push_back(i);
    }
    TRY(set_up(ring->ring_, file, buffers, ring->event_.fd()));
    ring->made_ = true;
    return ring;
}

Result<void> DiskRing::set_up(io_uring& ring, int file, std::span<const iovec> buffers, int event) {
    TRY(check(::io_uring_queue_init(kMaxOperations, &ring, IORING_SETUP_R_DISABLED), "io_uring_setup",
              "allow it with sysctl kernel.io_uring_disabled=0"));
    auto prepared = prepare(ring, file, buffers, event);
    if (!prepared) {
        ::io_uring_queue_exit(&ring);
    }
    return prepared;
}

DiskRing::~DiskRing() {
    if (made_) {
        ::io_uring_queue_exit(&ring_);
    }
}

std::optional<unsigned> DiskRing::take_slot() {
    if (free_.empty()) {
        return std::nullopt;
    }
    const unsigned slot = free_.back();
    free_.pop_back();
    return slot;
}

void DiskRing::add(const Operation& operation) {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    VERIFY(entry != nullptr);  // there is one for each operation
    std::byte* data = slot(operation.slot).data() + operation.slot_offset;
    const auto size = static_cast<unsigned>(operation.size);
    using Kind = Operation::Kind;
    switch (operation.kind) {
        case Kind::read:
            ::io_uring_prep_read_fixed(entry, kFile, data, size, operation.offset,
                                       static_cast<int>(operation.slot));
            break;
        case Kind::write:
        case Kind::write_through:
            ::io_uring_prep_write_fixed(entry, kFile, data, size, operation.offset,
                                        static_cast<int>(operation.slot));
            entry->rw_flags = operation.kind == Kind::write_through ? RWF_DSYNC : 0;
            break;
        case Kind::flush:
            ::io_uring_prep_fsync(entry, kFile, IORING_FSYNC_DATASYNC);
            break;
        case Kind::discard:
            ::io_uring_prep_fallocate(entry, kFile, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      static_cast<off_t>(operation.offset),
                                      static_cast<off_t>(operation.size));
            break;
        case Kind::write_zeroes:
            ::io_uring_prep_fallocate(entry, kFile, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                      static_cast<off_t>(operation.offset),
                                      static_cast<off_t>(operation.size));
            break;
    }
    entry->flags |= IOSQE_FIXED_FILE;
    ::io_uring_sqe_set_data64(entry, operation.token);
}

void DiskRing::submit() {
    // Errors of the host and of the guest come as completions. These mean that the kernel is out of memory
    // for a moment, or was interrupted: the rest is handed over at the next event, which is now.
    const int result = ::io_uring_submit(&ring_);
    if (result == -EINTR || result == -EAGAIN || result == -EBUSY || result == -ENOMEM) {
        event_.wake();
        return;
    }
    VERIFY(result >= 0);
}

std::optional<DiskRing::Completion> DiskRing::next() {
    io_uring_cqe* entry = nullptr;
    if (::io_uring_peek_cqe(&ring_, &entry) != 0) {
        return std::nullopt;
    }
    const Completion completion{::io_uring_cqe_get_data64(entry), entry->res};
    ::io_uring_cqe_seen(&ring_, entry);
    return completion;
}

}  // namespace devices::virtio
