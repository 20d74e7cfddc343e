#include "tools/vmm/log.hpp"

#include <unistd.h>

#include <algorithm>
#include <string>

namespace tools {

void log_text(std::string_view text) {
    std::string line = fmt::format("vmm: {}", text);
    // Texts of peers and of the guest may hold anything; a terminal is not to obey them.
    std::replace_if(
        line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; },
        ' ');
    line += '\n';
    // Nobody can be told when this fails.
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace tools
