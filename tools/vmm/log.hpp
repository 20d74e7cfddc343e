// What the program tells a person: single lines on standard error, whole even when several processes write.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace tools {

// "vmm: TEXT"; line breaks in the text become blanks.
void log_text(std::string_view text);

template <typename... Args>
void log_line(fmt::format_string<Args...> format, Args&&... args) {
    log_text(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace tools
