#include "tools/vmm/progress_line.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "migration/report.hpp"

using namespace tools;
using migration::to_json;

TEST_CASE("the progress line follows a migration, and admits what is unknown", "[tools]") {
    ProgressLine line{false};
    CHECK(line.text().empty());
    line.show(to_json({{}, migration::SourceEntered{migration::SourcePhase::copy}}));
    CHECK(line.text() == "copy: round -, sent -, owed -, -, predicted downtime -");
    line.show(to_json({{}, migration::RoundStarted{2, 2560}}));
    line.show(to_json({{}, migration::Progressed{2, std::uint64_t{40} << 20, 2560, 1048576.0}}));
    migration::Decided decided;
    decided.verdict.predicted = std::chrono::microseconds{12340};
    line.show(to_json({{}, decided}));
    CHECK(line.text() == "copy: round 2, sent 40 MiB, owed 10 MiB, 1 MiB/s, predicted downtime 12.3 ms");
    line.show(to_json({{},
                       migration::Interrupted{{"connection_lost", "h closed the connection", "", ""},
                                              std::chrono::seconds{30}}}));
    CHECK(line.text() == "copy: h closed the connection; trying to come back for 30.0 s");
}
