// FrameReader: one small frame of the migration protocol, or the preamble of TLS, from a connection that must
// not be waited for. Nothing is allocated on the word of the peer, and not one byte is read beyond the frame.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <variant>

#include "migration/frame.hpp"
#include "migration/tls_preamble.hpp"

namespace tools {

class FrameReader {
  public:
    static constexpr std::size_t kMaxFrame = 4096;

    // What has come of the connection, at most as much as there is room for; 0: nothing yet.
    using Receive = std::function<vmm::Result<std::size_t>(std::span<std::byte>)>;
    using Read = std::variant<migration::Message, migration::TlsPreamble>;

    // Takes what has come; what was read once it is whole. An error means that it never will be, or is not
    // one of ours.
    vmm::Result<std::optional<Read>> advance(const Receive& receive);

    static vmm::Result<std::size_t> receive(int socket, std::span<std::byte> to);

  private:
    // False: more must come.
    vmm::Result<bool> fill(const Receive& receive, std::size_t wanted);

    std::array<std::byte, kMaxFrame> bytes_;
    std::size_t have_ = 0;
    std::optional<migration::FrameHeader> header_;
};

}  // namespace tools
