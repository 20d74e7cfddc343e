#include "tools/vmm/preflight_report.hpp"

#include "migration/report.hpp"
#include "vmm/guest/address.hpp"

namespace tools {

using nlohmann::json;

namespace {

json list_of(const std::vector<migration::Reason>& reasons) {
    json list = json::array();
    for (const migration::Reason& reason : reasons) {
        list.push_back(migration::to_json(reason));
    }
    return list;
}

}  // namespace

json preflight_json(const migration::PreflightResult& result) {
    const double used_bytes = static_cast<double>(result.manifest.used_pages * vmm::kPageSize);
    const bool measured = result.link_bytes_per_s > 0;
    return {{"would_migrate", result.reply.reasons.empty()},
            {"reasons", list_of(result.reply.reasons)},
            {"warnings", list_of(result.reply.warnings)},
            {"memory_bytes", result.manifest.ram_bytes},
            {"used_bytes", result.manifest.used_pages * vmm::kPageSize},
            {"round_trip_ms", vmm::to_ms(result.round_trip)},
            {"clock_difference_ms", vmm::to_ms(result.clock_difference)},
            {"link_mib_s", measured ? json(result.link_bytes_per_s / (1 << 20)) : json(nullptr)},
            {"estimated_ms", measured ? json(used_bytes / result.link_bytes_per_s * 1000) : json(nullptr)}};
}

json preflight_json(const vmm::Error& error, const std::string& destination) {
    migration::Reason reason{"unreachable", error.text(), destination,
                             "see that `vmm receive` runs there and can take another guest"};
    if (error.code() == vmm::Code::refused) {
        reason.code = "refused";
    } else if (error.code() == vmm::Code::invalid) {
        // No destination was reached: the name or the port means nothing here.
        reason.code = "invalid";
        reason.remedy = "check the name of the host; this one does not know it";
    }
    return {{"would_migrate", false},         {"reasons", list_of({reason})}, {"warnings", json::array()},
            {"memory_bytes", nullptr},        {"used_bytes", nullptr},        {"round_trip_ms", nullptr},
            {"clock_difference_ms", nullptr}, {"link_mib_s", nullptr},        {"estimated_ms", nullptr}};
}

}  // namespace tools
