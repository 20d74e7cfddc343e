// FrameReader: one small frame of the migration protocol from a socket that must not be waited for. Nothing
// is allocated on the word of the peer, and not one byte is read beyond the frame.
#pragma once

#include <array>
#include <optional>

#include "migration/frame.hpp"

namespace tools {

class FrameReader {
  public:
    static constexpr std::size_t kMaxFrame = 4096;

    // Takes what has come; the message once it is whole. An error means that it never will be, or is not one
    // of ours.
    vmm::Result<std::optional<migration::Message>> advance(int socket);

  private:
    // False: more must come.
    vmm::Result<bool> fill(int socket, std::size_t wanted);

    std::array<std::byte, kMaxFrame> bytes_;
    std::size_t have_ = 0;
    std::optional<migration::FrameHeader> header_;
};

}  // namespace tools
