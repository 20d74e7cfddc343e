// The port to the kernel: everything that KVM is asked goes through here, so that unit tests run on a fake
// and see the order of the calls.
#pragma once

#include <cstdint>

#include "vmm/base/mapping.hpp"
#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"
#include "vmm/kvm/abi.hpp"

namespace vmm {

class IoctlPort {
  public:
    virtual ~IoctlPort() = default;
    // As open(2) and ioctl(2): -1 and errno on failure. ioctl starts again after EINTR, except KVM_RUN, for
    // which EINTR is an answer.
    virtual int open(const char* path) = 0;
    virtual int ioctl(int fd, unsigned long request, unsigned long argument) = 0;
    virtual Result<Mapping> map(int fd, std::size_t size) = 0;
};

// The kernel of this host; without state.
IoctlPort& real_ioctls();

// An ioctl number and its name for messages: KVM_REQUEST(KVM_GET_REGS).
struct KvmRequest {
    unsigned long number;
    const char* name;
};
#define KVM_REQUEST(NAME) \
    ::vmm::KvmRequest {   \
        NAME, #NAME       \
    }

// A descriptor of KVM (system, VM or vCPU) with the port that reaches it.
class KvmFd {
  public:
    KvmFd(IoctlPort& port, UniqueFd fd) : port_(&port), fd_(std::move(fd)) {}

    IoctlPort& port() const { return *port_; }
    int get() const { return fd_.get(); }

    // What ioctl returned; an error names the request. Any thread.
    Result<int> call(KvmRequest request, unsigned long argument = 0) const;
    // The argument is passed by address.
    template <typename T>
    Result<int> call_with(KvmRequest request, T& argument) const {
        return call(request, reinterpret_cast<unsigned long>(&argument));
    }
    // KVM_ENABLE_CAP with one argument.
    Result<void> enable(std::uint32_t capability, std::uint64_t argument) const;

  private:
    IoctlPort* port_;
    UniqueFd fd_;
};

}  // namespace vmm
