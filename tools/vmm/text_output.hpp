// Values of our JSON objects as a person reads them; "-" for what is unknown.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tools {

std::string number_text(const nlohmann::json& object, const char* name);
// "512 MiB"
std::string bytes_text(const nlohmann::json& object, const char* name);
// "3.2 ms", "12.3 s", "2 h 05 m"
std::string milliseconds_text(const nlohmann::json& object, const char* name);

// To standard output. What cannot be written shows at the end of the program; fmt::print would throw.
template <typename... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    (void)std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace tools
