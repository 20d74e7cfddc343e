// The signals that ask for an end, as events of a descriptor instead of interruptions.
#pragma once

#include <optional>

#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"

namespace tools {

class EndSignals {
  public:
    // Blocks SIGTERM, and SIGINT and SIGHUP unless they are ignored (nohup, a shell's background job), in
    // this thread and in those it starts from now on; ignores SIGPIPE. Before the first thread.
    static vmm::Result<EndSignals> block();

    // Readable when one has come. Of this process, or of the child of a fork that reads it.
    int fd() const { return fd_.get(); }
    // The number of the next one that came.
    std::optional<int> take() const;

  private:
    explicit EndSignals(vmm::UniqueFd fd) : fd_(std::move(fd)) {}
    vmm::UniqueFd fd_;
};

}  // namespace tools
