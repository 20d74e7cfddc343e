#include "migration/greeting.hpp"
#include "migration/source.hpp"

namespace migration {

using vmm::Result;
using vmm::TimePoint;

namespace {

constexpr std::size_t kProbeMiB = 32;

Result<double> measure_link(MessageStream& control, const vmm::Clock& clock, const Deadline& deadline) {
    const vmm::Bytes payload(Probe::kMaxPayload);
    const iovec part = part_of(payload);
    const TimePoint start = clock.now();
    for (std::size_t i = 1; i <= kProbeMiB; ++i) {
        TRY(control.send(Probe{i == kProbeMiB}, {&part, 1}, deadline));
    }
    TRY(control.expect<Probed>(deadline));
    return static_cast<double>(kProbeMiB * payload.size()) /
           std::chrono::duration<double>(clock.now() - start).count();
}

}  // namespace

Result<PreflightResult> run_preflight(SourceVm& vm, Connector& connector, const vmm::Clock& clock) {
    // Absolute: whoever asks waits for no peer longer than this.
    Deadline deadline;
    deadline.at = clock.now() + std::chrono::seconds{30};
    MessageStream control{TRY(connector.connect(deadline))};
    TRY(greet(control,
              make_hello(Purpose::preflight, random_bytes<std::tuple_size_v<SessionId>>(),
                         random_bytes<std::tuple_size_v<Secret>>()),
              deadline));
    PreflightResult result;
    result.manifest = TRY(complete_manifest(vm, vm.boot_image().size()));
    Examined examined = TRY(examine_at(control, result.manifest, clock, deadline));
    result.reply = std::move(examined.reply);
    if (control.security().exposed) {
        result.reply.warnings.push_back(exposed_link(control));
    }
    result.round_trip = examined.round_trip;
    result.clock_difference = examined.clock_difference;
    if (result.reply.reasons.empty()) {
        result.link_bytes_per_s = TRY(measure_link(control, clock, deadline));
    }
    return result;
}

}  // namespace migration
