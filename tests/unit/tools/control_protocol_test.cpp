#include "tools/vmm/control_protocol.hpp"

#include <catch2/catch.hpp>

#include "tools/vmm/line_buffer.hpp"

using namespace tools;
using namespace std::chrono_literals;
using nlohmann::json;

TEST_CASE("lines come out whole, whatever pieces they came in", "[tools]") {
    const std::string text = "one\n\ntwo\nthree";
    for (std::size_t piece = 1; piece <= text.size(); ++piece) {
        LineBuffer buffer{16};
        std::vector<std::string> lines;
        for (std::size_t at = 0; at < text.size(); at += piece) {
            buffer.append(std::string_view{text}.substr(at, piece));
            while (auto line = buffer.next()) {
                lines.push_back(*line);
            }
        }
        CHECK(lines == std::vector<std::string>{"one", "", "two"});
        CHECK_FALSE(buffer.overflowed());
    }
}

TEST_CASE("a line that is too long never comes out", "[tools]") {
    LineBuffer buffer{4};
    buffer.append("1234\n12345");
    CHECK(buffer.next() == "1234");
    CHECK(buffer.overflowed());
    buffer.append("\n1\n");
    CHECK_FALSE(buffer.next());
    CHECK(buffer.overflowed());
}

TEST_CASE("each command is a request", "[tools]") {
    const auto holds = [](const char* line, auto wanted) {
        const auto parsed = parse_request(line);
        REQUIRE(parsed.body.has_value());
        CHECK(std::holds_alternative<decltype(wanted)>(*parsed.body));
    };
    holds(R"({"command":"status"})", StatusRequest{});
    holds(R"({"command":"pause"})", PauseRequest{});
    holds(R"({"command":"resume"})", ResumeRequest{});
    holds(R"({"command":"stop"})", StopRequest{});
    holds(R"({"command":"events"})", EventsRequest{});
    holds(R"({"command":"cancel"})", CancelRequest{});
    holds(R"({"command":"preflight","to":"tcp:h:1"})", PreflightRequest{});
    holds(R"({"command":"resolve","resolution":"discard"})", ResolveRequest{});
    holds(R"({"command":"migrate","to":"tcp:h:1"})", MigrateRequest{});
}

TEST_CASE("a request's id comes back, of whatever becomes of it", "[tools]") {
    CHECK(parse_request(R"({"id":"x","command":"status"})").id == "x");
    CHECK(parse_request(R"({"id":7,"command":"nonsense"})").id == 7);
    CHECK(parse_request(R"({"command":"status"})").id.is_null());
    CHECK(ok_line(7) == R"({"id":7,"ok":true})");
    CHECK(ok_line(nullptr) == R"({"ok":true})");
    CHECK(json::parse(error_line("x", {"c", "w", "h", "d"})) ==
          json::parse(R"({"id":"x","ok":false,"error":{"code":"c","what":"w","where":"h","do":"d"}})"));
}

TEST_CASE("what is wrong with a request is an error, never a crash and never ignored", "[tools]") {
    for (const char* line : {"",
                             "{",
                             "[]",
                             "null",
                             "1",
                             "\"status\"",
                             "{}",
                             R"({"command":1})",
                             R"({"command":"none"})",
                             R"({"command":"status","extra":1})",
                             R"({"id":{},"command":"status"})",
                             R"({"id":1.5,"command":"status"})",
                             R"({"command":"resolve"})",
                             R"({"command":"resolve","resolution":"both"})",
                             R"({"command":"resolve","resolution":1})",
                             R"({"command":"migrate","to":"tcp:h:1","tls_dir":"relative"})",
                             R"({"command":"migrate","to":"tcp:h:1","tls_dir":1})",
                             R"({"command":"migrate","to":"tcp:h:1","tls_peer":"a"})",
                             R"({"command":"migrate","to":"tcp:h:1","tls_dir":"/d","tls_peer":"sha256:1"})",
                             R"({"command":"migrate","to":"tcp:h:1","tls_dir":"/d","insecure":true})",
                             R"({"command":"preflight","to":"tcp:h:1","insecure":1})",
                             R"({"command":"status","insecure":true})",
                             R"({"command":"preflight"})",
                             R"({"command":"preflight","to":"h:1"})",
                             R"({"command":"preflight","to":1})",
                             R"({"command":"migrate","to":"tcp:h:1","streams":65})",
                             R"({"command":"migrate","to":"tcp:h:1","streams":-1})",
                             R"({"command":"migrate","to":"tcp:h:1","streams":1.0})",
                             R"({"command":"migrate","to":"tcp:h:1","max_downtime_ms":0})",
                             R"({"command":"migrate","to":"tcp:h:1","max_downtime_ms":1e99})",
                             R"({"command":"migrate","to":"tcp:h:1","max_bandwidth":0})",
                             R"({"command":"migrate","to":"tcp:h:1","verify":"all"})",
                             "\xff\xfe",
                             "{\"command\":\"\xff\"}"}) {
        CAPTURE(line);
        CHECK_FALSE(parse_request(line).body.has_value());
    }
    CHECK_FALSE(parse_request(std::string(60000, '[')).body.has_value());
}

TEST_CASE("a migration is asked for with the options that were given", "[tools]") {
    MigrateRequest request;
    request.to = {"::1", "7000"};
    request.options.limits.max_downtime = 50ms;
    request.options.limits.max_pause = 2500ms;
    request.options.limits.on_stall = migration::OnStall::abort;
    request.options.streams = 4;
    request.options.max_bandwidth = 1'250'000'000;
    request.options.verify_full = true;
    request.options.timeout = 90s;
    const auto parsed = parse_request(line_of(to_json(request)));
    REQUIRE(parsed.body.has_value());
    const auto& back = std::get<MigrateRequest>(*parsed.body);
    CHECK(back.to.text() == "tcp:[::1]:7000");
    CHECK(back.options.limits.max_downtime == 50ms);
    CHECK(back.options.limits.max_pause == 2500ms);
    CHECK(back.options.limits.on_stall == migration::OnStall::abort);
    CHECK(back.options.streams == 4);
    CHECK(back.options.max_bandwidth == 1'250'000'000u);
    CHECK(back.options.verify_full);
    CHECK(back.options.timeout == 90s);

    const auto plain =
        parse_request(R"({"command":"migrate","to":"tcp:h:1","max_downtime_ms":1000,"timeout_ms":null})");
    REQUIRE(plain.body.has_value());
    const auto& options = std::get<MigrateRequest>(*plain.body).options;
    CHECK(options.limits.max_pause == 4s);
    CHECK_FALSE(options.timeout);
    CHECK_FALSE(options.max_bandwidth);
    CHECK_FALSE(options.verify_full);
}

TEST_CASE("text that is not UTF-8 does not end the process", "[tools]") {
    CHECK_FALSE(error_line(nullptr, {"c", "\xff\xfe", "", ""}).empty());
}

TEST_CASE("what protects a link survives the way to the guest's process", "[tools]") {
    const auto again = [](const auto& request) {
        const auto parsed = parse_request(line_of(to_json(request)));
        REQUIRE(parsed.body.has_value());
        return std::get<std::decay_t<decltype(request)>>(*parsed.body).link;
    };
    MigrateRequest migrate;
    migrate.to = {"h", "1"};
    CHECK(again(migrate).tls_dir.empty());
    CHECK_FALSE(again(migrate).insecure);
    migrate.link.insecure = true;
    CHECK(again(migrate).insecure);
    PreflightRequest preflight;
    preflight.to = {"h", "1"};
    preflight.link = {"/etc/tls", *migration::TlsPeer::parse("sha256:" + std::string(64, 'b')), false};
    CHECK(again(preflight).tls_dir == "/etc/tls");
    CHECK(again(preflight).tls_peer->text() == "sha256:" + std::string(64, 'b'));
    CHECK_FALSE(again(preflight).insecure);
}
