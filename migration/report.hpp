// Report: the fold of a source's events. What is unknown stays empty, never 0.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>

#include "migration/event.hpp"

namespace migration {

// Parts of the downtime: disjoint, in order, and together its whole. `other` is what lies between hosts:
// hops.
struct DowntimeParts {
    std::optional<vmm::Duration> pause, last_round, save, send, restore, commit, resume, other;
};

struct Report {
    std::optional<Outcome> outcome;
    std::vector<Reason> reasons;
    std::vector<Reason> warnings;
    std::string session;
    std::optional<std::uint16_t> streams;
    std::optional<TlsFacts> tls;            // none: plain TCP, or it came to nothing before
    std::optional<vmm::Duration> setup;     // request to the first round
    std::optional<vmm::Duration> total;     // request to Running, or to the end
    std::optional<vmm::Duration> downtime;  // first vCPU asked to stop to Running received: an upper bound
    DowntimeParts parts;
    std::optional<vmm::Drain> drain;  // part of parts.pause
    std::optional<vmm::Duration> predicted_downtime;
    std::vector<Round> rounds;
    std::vector<Resumed> resumes;  // after broken connections
    std::optional<std::uint64_t> bytes_sent;
    bool digest_verified = false;
};

Report fold(std::span<const Event> events);

// The object of `vmm migrate --json`; docs/json.md has its schema.
nlohmann::json to_json(const Report& report);
nlohmann::json to_json(const Reason& reason);
// One event as the `events` command prints it.
nlohmann::json to_json(const Event& event);

}  // namespace migration
