// Sandbox: what the process of a guest, or of `vmm receive`, gives up. docs/sandbox.md says when and why.
//
//     begin()     inherited descriptors, new privileges, the user (with a few capabilities left for set-up)
//     confine()   once set-up is over: the capabilities, and all system calls but those of the thread's role
//
// A thread that is started in between is confined before it does anything.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "vmm/base/result.hpp"
#include "vmm/base/thread.hpp"

namespace tools {

struct SandboxOptions {
    bool filtered = true;  // --no-sandbox
    std::string user;      // empty: as it was started
};

// One in a process. Functions are called by its first thread, or by one that stands alone after fork.
class Sandbox {
  public:
    // First of all, while there is one thread. `capabilities` matter with a user only. An error says what to
    // do.
    static vmm::Result<std::unique_ptr<Sandbox>> begin(SandboxOptions options,
                                                       std::span<const int> capabilities);
    // After the threads.
    ~Sandbox();
    Sandbox(const Sandbox&) = delete;
    Sandbox& operator=(const Sandbox&) = delete;

    // The calling thread, and whatever threads and processes it makes from here on. What one call forbids
    // another cannot allow.
    vmm::Result<void> confine(vmm::ThreadRole role) const;

    const SandboxOptions& options() const { return options_; }

  private:
    explicit Sandbox(SandboxOptions options) : options_(std::move(options)) {}

    const SandboxOptions options_;
};

// Allows the calling thread the calls of the role from here on, for ever. It must have no_new_privs.
vmm::Result<void> install_filter(vmm::ThreadRole role);

}  // namespace tools
