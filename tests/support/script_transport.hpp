// A peer that says what is written in a script, and nothing more; what is sent to it is gone. It remembers
// what was asked of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "migration/transport.hpp"

namespace tests {

class ScriptTransport final : public migration::Transport {
  public:
    // What the reader wanted, written here if given; it must outlive the transport.
    struct Asked {
        std::size_t largest_part = 0;  // of memory that was ready before the bytes had come
        std::vector<migration::Deadline> deadlines;
    };

    explicit ScriptTransport(std::span<const std::byte> script, Asked* asked = nullptr)
        : script_(script), asked_(asked) {}

    vmm::Result<void> send(std::span<const iovec>, const migration::Deadline&) override {
        return shut_ ? vmm::fail(vmm::Code::closed, "the connection is closed") : vmm::Result<void>{};
    }
    vmm::Result<void> receive(std::span<const iovec> parts, const migration::Deadline& deadline) override {
        if (asked_ != nullptr) {
            asked_->deadlines.push_back(deadline);
        }
        for (const iovec& part : parts) {
            if (asked_ != nullptr) {
                asked_->largest_part = std::max(asked_->largest_part, part.iov_len);
            }
            if (shut_ || script_.size() < part.iov_len) {
                return vmm::fail(vmm::Code::closed, "the connection is closed");
            }
            if (part.iov_len != 0) {
                std::memcpy(part.iov_base, script_.data(), part.iov_len);
            }
            script_ = script_.subspan(part.iov_len);
        }
        return {};
    }
    void shutdown() override { shut_ = true; }
    void abort() override { shut_ = true; }
    std::string peer() const override { return "script"; }

  private:
    std::span<const std::byte> script_;
    Asked* asked_;
    std::atomic<bool> shut_ = false;
};

}  // namespace tests
