// LineBuffer: bytes of a stream in, lines out, with a limit on their length.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tools {

class LineBuffer {
  public:
    // Of a request or a reply, without its line feed. Nobody sends more, and more is an error.
    static constexpr std::size_t kMaxRequest = std::size_t{64} << 10;

    explicit LineBuffer(std::size_t limit) : limit_(limit) {}

    void append(std::string_view bytes) { bytes_ += bytes; }
    // The next whole line, without its line feed.
    std::optional<std::string> next();
    // The line that is beginning is longer than the limit: there will be no further one.
    bool overflowed() const;

  private:
    std::string bytes_;
    std::size_t limit_;
};

}  // namespace tools
