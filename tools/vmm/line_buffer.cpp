#include "tools/vmm/line_buffer.hpp"

namespace tools {

std::optional<std::string> LineBuffer::next() {
    const std::size_t end = bytes_.find('\n');
    if (end == std::string::npos || end > limit_) {
        return std::nullopt;
    }
    std::string line = bytes_.substr(0, end);
    bytes_.erase(0, end + 1);
    return line;
}

bool LineBuffer::overflowed() const {
    const std::size_t end = bytes_.find('\n');
    return (end == std::string::npos ? bytes_.size() : end) > limit_;
}

}  // namespace tools
