#include "tools/vmm/text_output.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace tools {

using nlohmann::json;

namespace {

// Nothing when it is null or missing.
const json* number_in(const json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_number() ? &*found : nullptr;
}

}  // namespace

std::string number_text(const json& object, const char* name) {
    const json* value = number_in(object, name);
    return value == nullptr ? "-" : value->dump();
}

std::string bytes_text(const json& object, const char* name) {
    const json* value = number_in(object, name);
    if (value == nullptr) {
        return "-";
    }
    const double mib = value->get<double>() / (1 << 20);
    return mib < 10240 ? fmt::format("{:.{}f} MiB", mib, mib < 10 && mib != static_cast<int>(mib) ? 1 : 0)
                       : fmt::format("{:.1f} GiB", mib / 1024);
}

std::string milliseconds_text(const json& object, const char* name) {
    const json* value = number_in(object, name);
    if (value == nullptr) {
        return "-";
    }
    const double ms = value->get<double>();
    if (ms < 1000) {
        return fmt::format("{:.1f} ms", ms);
    }
    if (ms < 120'000) {
        return fmt::format("{:.1f} s", ms / 1000);
    }
    const auto minutes = static_cast<std::uint64_t>(ms / 60'000);
    return fmt::format("{} h {:02} m", minutes / 60, minutes % 60);
}

}  // namespace tools
