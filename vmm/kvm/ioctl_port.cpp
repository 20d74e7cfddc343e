#include "vmm/kvm/ioctl_port.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace vmm {

namespace {

class RealIoctls final : public IoctlPort {
  public:
    int open(const char* path) override {
        int fd = -1;
        do {
            fd = ::open(path, O_RDWR | O_CLOEXEC);
        } while (fd == -1 && errno == EINTR);
        return fd;
    }

    int ioctl(int fd, unsigned long request, unsigned long argument) override {
        int result = -1;
        do {
            result = ::ioctl(fd, request, argument);
        } while (result == -1 && errno == EINTR && request != KVM_RUN);
        return result;
    }

    Result<Mapping> map(int fd, std::size_t size) override { return Mapping::shared(fd, size); }
};

}  // namespace

IoctlPort& real_ioctls() {
    static RealIoctls port;
    return port;
}

Result<int> KvmFd::call(KvmRequest request, unsigned long argument) const {
    const int result = port_->ioctl(fd_.get(), request.number, argument);
    if (result < 0) {
        return fail_errno(Code::kvm, "{}", request.name);
    }
    return result;
}

Result<void> KvmFd::enable(std::uint32_t capability, std::uint64_t argument) const {
    kvm_enable_cap cap{};
    cap.cap = capability;
    cap.args[0] = argument;
    TRY(call_with(KVM_REQUEST(KVM_ENABLE_CAP), cap).context(fmt::format("capability {}", capability)));
    return {};
}

}  // namespace vmm
