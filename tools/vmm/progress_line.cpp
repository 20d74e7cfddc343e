#include "tools/vmm/progress_line.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "tools/vmm/control_client.hpp"
#include "tools/vmm/text_output.hpp"
#include "vmm/guest/address.hpp"

namespace tools {

using nlohmann::json;

namespace {

std::string pages_text(const json& event, const char* name) {
    const json& pages = field(event, name);
    return pages.is_number_unsigned()
               ? bytes_text({{"bytes", pages.get<std::uint64_t>() * vmm::kPageSize}}, "bytes")
               : "-";
}

void write_all(const std::string& text) {
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

void ProgressLine::show(const json& event) {
    const std::string kind = text_of(event, "event");
    if (kind == "source_phase") {
        phase_ = text_of(event, "phase");
    } else if (kind == "queued") {
        text_ = fmt::format("{}: {}", phase_, text_of(event, "text"));
        return draw();
    } else if (kind == "interrupted") {
        text_ = fmt::format("{}: {}; trying to come back for {}", phase_,
                            text_of(field(event, "reason"), "what"), milliseconds_text(event, "retry_ms"));
        return draw();
    } else if (kind == "round_started") {
        round_ = number_text(event, "round");
        owed_ = pages_text(event, "owed_pages");
    } else if (kind == "progress") {
        sent_ = bytes_text(event, "bytes_sent");
        rate_ = bytes_text(event, "bytes_per_s") + "/s";
    } else if (kind == "round_finished") {
        owed_ = pages_text(event, "owed_after");
    } else if (kind == "decided") {
        predicted_ = milliseconds_text(event, "predicted_downtime_ms");
    } else {
        return;
    }
    text_ = fmt::format("{}: round {}, sent {}, owed {}, {}, predicted downtime {}", phase_, round_, sent_,
                        owed_, rate_, predicted_);
    draw();
}

void ProgressLine::draw() {
    if (!enabled_) {
        return;
    }
    drawn_ = true;
    write_all(fmt::format("\r{}\x1b[K", text_));
}

void ProgressLine::clear() {
    if (drawn_) {
        write_all("\r\x1b[K");
        drawn_ = false;
    }
}

}  // namespace tools
