// The control socket's lines. Oracle: a request of any kind is answered with one line of JSON that carries
// its id, and a migration that was understood is understood the same when it is written out again.
#include "tests/fuzz/input.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "tools/vmm/line_buffer.hpp"
#include "vmm/base/check.hpp"

namespace {

void answer(std::string_view line) {
    const tools::ParsedRequest request = tools::parse_request(line);
    const std::string reply =
        request.body ? tools::ok_line(request.id)
                     : tools::error_line(request.id, {"invalid", request.body.error().text(), "", ""});
    VERIFY(reply.find('\n') == std::string::npos);
    const auto parsed = nlohmann::json::parse(reply, nullptr, false);
    VERIFY(parsed.is_object() && parsed["ok"] == request.body.has_value());
    VERIFY(parsed.contains("id") == !request.id.is_null());
    if (!request.body) {
        return;
    }
    if (const auto* migrate = std::get_if<tools::MigrateRequest>(&*request.body)) {
        const nlohmann::json object = tools::to_json(*migrate);
        const tools::ParsedRequest again = tools::parse_request(tools::line_of(object));
        VERIFY(again.body.has_value() &&
               tools::to_json(std::get<tools::MigrateRequest>(*again.body)) == object);
    }
}

}  // namespace

// A byte for how it is cut, a byte for the limit, then lines.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input{data, size};
    const std::size_t piece = std::size_t{input.take<std::uint8_t>()} * 16 + 1;
    const std::size_t limit = std::size_t{input.take<std::uint8_t>()} * 64 + 64;
    tools::LineBuffer buffer{limit};
    while (!input.empty() && !buffer.overflowed()) {
        const auto next = input.take_bytes(piece);
        buffer.append({reinterpret_cast<const char*>(next.data()), next.size()});
        while (const auto line = buffer.next()) {
            VERIFY(line->size() <= limit && line->find('\n') == std::string::npos);
            answer(*line);
        }
    }
    return 0;
}
