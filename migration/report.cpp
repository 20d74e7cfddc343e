#include "migration/report.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "vmm/guest/address.hpp"

namespace migration {

using nlohmann::json;
using vmm::Duration;
using vmm::TimePoint;

namespace {

template <typename... F>
struct Overloaded : F... {
    using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

json ms(const std::optional<Duration>& duration) {
    return duration ? json(vmm::to_ms(*duration)) : json(nullptr);
}

class Moments {
  public:
    void set(Moment moment, TimePoint at) { at_[static_cast<std::size_t>(moment)] = at; }
    std::optional<Duration> between(Moment from, Moment to) const {
        const auto& a = at_[static_cast<std::size_t>(from)];
        const auto& b = at_[static_cast<std::size_t>(to)];
        return a && b ? std::optional<Duration>{*b - *a} : std::nullopt;
    }

  private:
    std::array<std::optional<TimePoint>, 8> at_;
};

void set_downtime(Report& report, const Moments& moments, const std::optional<DestinationTimes>& destination,
                  std::optional<Duration> resume) {
    DowntimeParts& parts = report.parts;
    parts.pause = moments.between(Moment::pause_begun, Moment::paused);
    parts.last_round = moments.between(Moment::saved, Moment::last_round_sent);
    parts.save = moments.between(Moment::paused, Moment::saved);
    parts.send = moments.between(Moment::last_round_sent, Moment::state_sent);
    parts.commit = moments.between(Moment::ready_received, Moment::commit_sent);
    // The destination's own clock, so cut to the wait in which it happened: parts must not overlap.
    if (const auto wait = moments.between(Moment::state_sent, Moment::ready_received); wait && destination) {
        parts.restore = std::min(destination->verify + destination->restore, *wait);
    }
    if (const auto wait = moments.between(Moment::commit_sent, Moment::running_received); wait && resume) {
        parts.resume = std::min(*resume, *wait);
    }
    report.downtime = moments.between(Moment::pause_begun, Moment::running_received);
    if (!report.downtime) {
        return;
    }
    Duration known{};
    for (const auto& part :
         {parts.pause, parts.last_round, parts.save, parts.send, parts.restore, parts.commit, parts.resume}) {
        known += part.value_or(Duration{});
    }
    parts.other = *report.downtime - known;
}

json drain_json(const vmm::Drain& drain) {
    return {{"requests", drain.requests}, {"ms", vmm::to_ms(drain.time)}};
}

json tls_json(const TlsFacts& tls) {
    return {{"version", tls.version},
            {"cipher", tls.cipher},
            {"ktls_send", tls.kernel_sends},
            {"ktls_receive", tls.kernel_receives}};
}

json round_json(const Round& round) {
    return {{"round", round.number},
            {"ms", vmm::to_ms(round.duration)},
            {"data_pages", round.data_pages},
            {"zero_pages", round.zero_pages},
            {"unchanged_pages", round.unchanged_pages},
            {"bytes", round.bytes},
            {"owed_after", round.owed_after}};
}

json resume_json(const Resumed& resumed) {
    return {{"outage_ms", vmm::to_ms(resumed.outage)},
            {"kept_pages", resumed.kept_pages},
            {"owed_pages", resumed.owed_pages}};
}

json reasons_json(const std::vector<Reason>& reasons) {
    json list = json::array();
    for (const Reason& reason : reasons) {
        list.push_back(to_json(reason));
    }
    return list;
}

constexpr std::array<std::string_view, 9> kSourcePhases{
    "connect", "negotiate", "preflight", "prepare", "copy", "pause", "final", "commit", "done"};
constexpr std::array<std::string_view, 9> kDestinationPhases{
    "greeted", "configured", "receiving", "verified", "loaded", "started", "refused", "failed", "parked"};
constexpr std::array<std::string_view, 8> kMoments{"pause_begun",     "paused",          "saved",
                                                   "last_round_sent", "state_sent",      "ready_received",
                                                   "commit_sent",     "running_received"};
constexpr std::array<std::string_view, 4> kOutcomes{"completed", "failed", "cancelled", "unknown"};

}  // namespace

std::string_view name_of(SourcePhase phase) {
    return kSourcePhases[static_cast<std::size_t>(phase)];
}
std::string_view name_of(DestinationPhase phase) {
    return kDestinationPhases[static_cast<std::size_t>(phase)];
}
std::string_view name_of(Outcome outcome) {
    return kOutcomes[static_cast<std::size_t>(outcome)];
}

Report fold(std::span<const Event> events) {
    Report report;
    Moments moments;
    std::optional<TimePoint> first_round;
    std::optional<TimePoint> running;
    std::optional<DestinationTimes> destination;
    std::optional<Duration> resume;
    for (const Event& event : events) {
        std::visit(Overloaded{
                       [&](const SessionOpened& e) {
                           report.session = e.session;
                           report.streams = e.streams;
                       },
                       [&](const Secured& e) { report.tls = e.tls; },
                       [&](const Warned& e) { report.warnings.push_back(e.reason); },
                       [&](const RoundStarted&) { first_round = first_round.value_or(event.at); },
                       [&](const RoundFinished& e) { report.rounds.push_back(e.round); },
                       [&](const Decided& e) { report.predicted_downtime = e.verdict.predicted; },
                       [&](const Reached& e) {
                           moments.set(e.moment, event.at);
                           if (e.moment == Moment::running_received) {
                               running = event.at;
                           }
                       },
                       [&](const Drained& e) { report.drain = e.drain; },
                       [&](const DestinationTimes& e) { destination = e; },
                       [&](const Resumed& e) { report.resumes.push_back(e); },
                       [&](const DestinationResumed& e) { resume = e.resume; },
                       [&](const Ended& e) {
                           report.outcome = e.outcome;
                           report.reasons = e.reasons;
                           report.bytes_sent = e.bytes_sent;
                           report.digest_verified = e.digest_verified;
                       },
                       [](const auto&) {},
                   },
                   event.what);
    }
    if (!events.empty()) {
        const TimePoint start = events.front().at;
        if (first_round) {
            report.setup = *first_round - start;
        }
        report.total = running.value_or(events.back().at) - start;
    }
    set_downtime(report, moments, destination, resume);
    return report;
}

json to_json(const Reason& reason) {
    return {{"code", reason.code}, {"what", reason.what}, {"where", reason.where}, {"do", reason.remedy}};
}

json to_json(const Report& report) {
    json rounds = json::array();
    std::uint64_t data_pages = 0;
    Duration sending{};
    for (const Round& round : report.rounds) {
        rounds.push_back(round_json(round));
        data_pages += round.data_pages;
        sending += round.duration;
    }
    json resumes = json::array();
    for (const Resumed& resumed : report.resumes) {
        resumes.push_back(resume_json(resumed));
    }
    json throughput = nullptr;
    if (data_pages > 0 && sending > Duration::zero()) {
        throughput = static_cast<double>(data_pages * vmm::kPageSize) / (1 << 20) /
                     std::chrono::duration<double>(sending).count();
    }
    const DowntimeParts& parts = report.parts;
    return {{"result", name_of(report.outcome.value_or(Outcome::unknown))},
            {"reasons", reasons_json(report.reasons)},
            {"warnings", reasons_json(report.warnings)},
            {"session", report.session.empty() ? json(nullptr) : json(report.session)},
            {"mode", "precopy"},
            {"total_ms", ms(report.total)},
            {"setup_ms", ms(report.setup)},
            {"downtime_ms", ms(report.downtime)},
            {"downtime",
             {{"pause_ms", ms(parts.pause)},
              {"last_round_ms", ms(parts.last_round)},
              {"save_ms", ms(parts.save)},
              {"send_ms", ms(parts.send)},
              {"restore_ms", ms(parts.restore)},
              {"commit_ms", ms(parts.commit)},
              {"resume_ms", ms(parts.resume)},
              {"other_ms", ms(parts.other)}}},
            {"drain", report.drain ? drain_json(*report.drain) : json(nullptr)},
            {"predicted_downtime_ms", ms(report.predicted_downtime)},
            {"rounds", std::move(rounds)},
            {"resumes", std::move(resumes)},
            {"bytes_sent", report.bytes_sent ? json(*report.bytes_sent) : json(nullptr)},
            {"throughput_mib_s", std::move(throughput)},
            {"digest", {{"algorithm", "xxh3-128"}, {"verified", report.digest_verified}}},
            {"streams", report.streams ? json(*report.streams) : json(nullptr)},
            {"tls", report.tls ? tls_json(*report.tls) : json(nullptr)}};
}

json to_json(const Event& event) {
    json out = std::visit(
        Overloaded{
            [](const SourceEntered& e) {
                return json{{"event", "source_phase"}, {"phase", name_of(e.phase)}};
            },
            [](const DestinationEntered& e) {
                return json{
                    {"event", "destination_phase"}, {"phase", name_of(e.phase)}, {"session", e.session}};
            },
            [](const SessionOpened& e) {
                return json{
                    {"event", "session"}, {"session", e.session}, {"peer", e.peer}, {"streams", e.streams}};
            },
            [](const Queued& e) {
                return json{{"event", "queued"}, {"place", e.place}, {"text", e.text}};
            },
            [](const Secured& e) {
                json tls = tls_json(e.tls);
                tls["event"] = "secured";
                return tls;
            },
            [](const Warned& e) {
                return json{{"event", "warning"}, {"reason", to_json(e.reason)}};
            },
            [](const RoundStarted& e) {
                return json{{"event", "round_started"}, {"round", e.round}, {"owed_pages", e.owed_pages}};
            },
            [](const Progressed& e) {
                return json{{"event", "progress"},
                            {"round", e.round},
                            {"bytes_sent", e.bytes_sent},
                            {"owed_pages", e.owed_pages},
                            {"bytes_per_s", e.rate}};
            },
            [](const RoundFinished& e) {
                json round = round_json(e.round);
                round["event"] = "round_finished";
                return round;
            },
            [](const Decided& e) {
                constexpr std::array<std::string_view, 3> actions{"another_round", "switch_over", "give_up"};
                return json{{"event", "decided"},
                            {"action", actions[static_cast<std::size_t>(e.verdict.action)]},
                            {"predicted_downtime_ms", vmm::to_ms(e.verdict.predicted)},
                            {"why", e.verdict.why}};
            },
            [](const Reached& e) {
                return json{{"event", "moment"}, {"moment", kMoments[static_cast<std::size_t>(e.moment)]}};
            },
            [](const Drained& e) {
                json drain = drain_json(e.drain);
                drain["event"] = "drained";
                return drain;
            },
            [](const DestinationTimes& e) {
                return json{{"event", "destination_times"},
                            {"verify_ms", vmm::to_ms(e.verify)},
                            {"restore_ms", vmm::to_ms(e.restore)}};
            },
            [](const DestinationResumed& e) {
                return json{{"event", "destination_resumed"}, {"resume_ms", vmm::to_ms(e.resume)}};
            },
            [](const Interrupted& e) {
                return json{{"event", "interrupted"},
                            {"reason", to_json(e.reason)},
                            {"retry_ms", vmm::to_ms(e.retry)}};
            },
            [](const Resumed& e) {
                json object = resume_json(e);
                object["event"] = "resumed";
                return object;
            },
            [](const Ended& e) {
                return json{
                    {"event", "ended"}, {"result", name_of(e.outcome)}, {"reasons", reasons_json(e.reasons)}};
            },
        },
        event.what);
    out["at_ns"] = event.at.time_since_epoch().count();
    return out;
}

}  // namespace migration
