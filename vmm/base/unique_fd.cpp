#include "vmm/base/unique_fd.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace vmm {

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
        reset();
        fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
}

void UniqueFd::reset() {
    if (fd_ >= 0) {
        ::close(std::exchange(fd_, -1));
    }
}

Result<UniqueFd> UniqueFd::duplicate() const {
    UniqueFd copy{::fcntl(fd_, F_DUPFD_CLOEXEC, 3)};
    if (!copy) {
        return fail_errno(Code::io, "duplicate descriptor {}", fd_);
    }
    return copy;
}

Result<WakeFd> WakeFd::create() {
    UniqueFd fd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (!fd) {
        return fail_errno(Code::io, "eventfd");
    }
    return WakeFd{std::move(fd)};
}

void WakeFd::wake() const {
    const std::uint64_t one = 1;
    // EAGAIN means the counter is full, so the poller is awake already.
    (void)!::write(fd_.get(), &one, sizeof one);
}

void WakeFd::clear() const {
    std::uint64_t count = 0;
    (void)!::read(fd_.get(), &count, sizeof count);
}

}  // namespace vmm
