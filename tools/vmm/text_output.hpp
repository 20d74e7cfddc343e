// Values of our JSON objects as a person reads them; "-" for what is unknown.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tools {

std::string number_text(const nlohmann::json& object, const char* name);
// "512 MiB"
std::string bytes_text(const nlohmann::json& object, const char* name);
// "3.2 ms", "12.3 s", "2 h 05 m"
std::string milliseconds_text(const nlohmann::json& object, const char* name);

}  // namespace tools
