#include "devices/virtio/disk_image.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "vmm/base/advice.hpp"

namespace devices::virtio {

using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;

namespace {

constexpr off_t kOwnerAt = off_t{1} << 62;
constexpr off_t kHeirAt = kOwnerAt + 1;
constexpr vmm::Duration kPatience = std::chrono::seconds{1};
constexpr vmm::Duration kAgain = std::chrono::milliseconds{5};

struct flock lock_range(int type, off_t at) {
    struct flock range {};
    range.l_type = static_cast<short>(type);
    range.l_whence = SEEK_SET;
    range.l_start = at;
    range.l_len = 1;
    return range;
}

// Whether `is_free` becomes true in time: a process on its way out keeps its locks for a moment. Nothing
// tells when a lock becomes free but a wait without a limit.
template <typename IsFree>
Result<bool> wait_for(IsFree is_free) {
    const vmm::TimePoint end = vmm::real_clock().now() + kPatience;
    while (!TRY(is_free())) {
        if (vmm::real_clock().now() >= end) {
            return false;
        }
        std::this_thread::sleep_for(kAgain);
    }
    return true;
}

Result<vmm::UniqueFd> open_file(const DiskConfig& config) {
    const int flags = (config.read_only ? O_RDONLY : O_RDWR) | (config.direct ? O_DIRECT : 0);
    vmm::UniqueFd fd{::open(config.path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    if (!fd) {
        const char* remedy =
            errno == EINVAL && config.direct    ? "its file system has no O_DIRECT: leave `direct` out"
            : errno == EROFS || errno == EACCES ? "make it writable, or add `ro`"
                                                : "make the image first, for example with truncate(1)";
        return advise(fail_errno(Code::io, "open {}", config.path), remedy);
    }
    return fd;
}

Result<std::uint64_t> sectors_of(int fd, const DiskConfig& config) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) {
        return fail_errno(Code::io, "{}", config.path);
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return fail(Code::invalid, "{} is neither a file nor a block device; give a raw image", config.path);
    }
    // Opening a pipe must not wait; but a read or write of io_uring that may not wait fails where it would.
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) {
        return fail_errno(Code::io, "{}", config.path);
    }
    const off_t size = ::lseek(fd, 0, SEEK_END);
    if (size < 0) {
        return fail_errno(Code::io, "size of {}", config.path);
    }
    if (size == 0 || static_cast<std::uint64_t>(size) % kSectorBytes != 0) {
        return fail(Code::invalid,
                    "{} has {} bytes; a disk has a multiple of {}: enlarge it with truncate(1)", config.path,
                    size, kSectorBytes);
    }
    return static_cast<std::uint64_t>(size) / kSectorBytes;
}

// statx(2), Linux 6.1: where the file system knows.
Result<void> check_direct(const DiskConfig& config) {
    struct statx status {};
    if (!config.direct || ::statx(AT_FDCWD, config.path.c_str(), 0, STATX_DIOALIGN, &status) != 0 ||
        (status.stx_mask & STATX_DIOALIGN) == 0 || status.stx_dio_offset_align <= kSectorBytes) {
        return {};
    }
    return fail(Code::unsupported,
                "{}: direct access takes blocks of {} bytes there, a guest's have {}; leave `direct` out",
                config.path, status.stx_dio_offset_align, kSectorBytes);
}

}  // namespace

Result<std::unique_ptr<DiskImage>> DiskImage::open(const DiskConfig& config) {
    vmm::UniqueFd fd = TRY(open_file(config));
    TRY(check_direct(config));
    const std::uint64_t sectors = TRY(sectors_of(fd.get(), config));
    std::unique_ptr<DiskImage> image{new DiskImage{config, std::move(fd), sectors}};
    TRY(image->insist(Lock::heir));
    return image;
}

Result<bool> DiskImage::set(Lock lock, Want want) const {
    const int type = want == Want::free ? F_UNLCK : config_.read_only ? F_RDLCK : F_WRLCK;
    struct flock range = lock_range(type, lock == Lock::heir ? kHeirAt : kOwnerAt);
    if (::fcntl(fd_.get(), F_OFD_SETLK, &range) == 0) {
        return true;
    }
    if (errno == EAGAIN || errno == EACCES) {
        return false;
    }
    return fail_errno(Code::io, "lock {}", config_.path);
}

Result<void> DiskImage::insist(Lock lock) const {
    if (!TRY(wait_for([&] { return set(lock, Want::held); }))) {
        return fail(Code::refused, "{} is in use by another guest{}; end that one first", config_.path,
                    lock == Lock::heir ? ", or about to be" : "");
    }
    return {};
}

Result<void> DiskImage::take() {
    if (owned_) {
        return {};
    }
    TRY(insist(Lock::owner));
    owned_ = true;
    TRY(set(Lock::heir, Want::free));
    return {};
}

Result<void> DiskImage::begin_flush() {
    return config_.read_only ? Result<void>{} : flusher_.begin();
}

Result<void> DiskImage::wait_flushed(vmm::Duration limit) {
    return flusher_.wait(limit);
}

Result<void> DiskImage::give() {
    if (!owned_) {
        return {};
    }
    TRY(set(Lock::owner, Want::free));
    owned_ = false;
    return {};
}

Result<std::uint64_t> examine_disk(const DiskConfig& config) {
    const vmm::UniqueFd fd = TRY(open_file(config));
    TRY(check_direct(config));
    const std::uint64_t sectors = TRY(sectors_of(fd.get(), config));
    const auto no_heir = [&]() -> Result<bool> {
        struct flock heir = lock_range(config.read_only ? F_RDLCK : F_WRLCK, kHeirAt);
        return ::fcntl(fd.get(), F_OFD_GETLK, &heir) != 0 || heir.l_type == F_UNLCK;
    };
    if (!TRY(wait_for(no_heir))) {
        return fail(Code::refused, "{} is about to be used by another guest; end that one first",
                    config.path);
    }
    // The guest that asks to come has it open. Locks of a block device do not reach other hosts.
    struct stat status {};
    struct flock owner = lock_range(F_WRLCK, kOwnerAt);
    if (::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode) &&
        ::fcntl(fd.get(), F_OFD_GETLK, &owner) == 0 && owner.l_type == F_UNLCK) {
        return fail(Code::mismatch,
                    "{} is not the image that the guest uses: nobody has it; give the same file on a shared "
                    "file system",
                    config.path);
    }
    return sectors;
}

}  // namespace devices::virtio
