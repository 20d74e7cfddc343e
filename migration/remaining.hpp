// Remaining: what is left to do of a transfer in parts.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <climits>
#include <span>
#include <vector>

namespace migration {

// A copy of the parts from which what was transferred is cut off at the front.
class Remaining {
  public:
    explicit Remaining(std::span<const iovec> parts) : parts_(parts.begin(), parts.end()) { skip_empty(); }

    bool done() const { return at_ == parts_.size(); }
    // The first part that is left.
    const iovec& front() const { return parts_[at_]; }
    msghdr header() {
        msghdr header{};
        header.msg_iov = parts_.data() + at_;
        header.msg_iovlen = std::min<std::size_t>(parts_.size() - at_, IOV_MAX);
        return header;
    }
    void advance(std::size_t bytes) {
        while (bytes > 0) {
            iovec& part = parts_[at_];
            const std::size_t taken = std::min(bytes, part.iov_len);
            part.iov_base = static_cast<std::byte*>(part.iov_base) + taken;
            part.iov_len -= taken;
            bytes -= taken;
            skip_empty();
        }
    }

  private:
    void skip_empty() {
        while (at_ < parts_.size() && parts_[at_].iov_len == 0) {
            ++at_;
        }
    }

    std::vector<iovec> parts_;
    std::size_t at_ = 0;
};

}  // namespace migration
