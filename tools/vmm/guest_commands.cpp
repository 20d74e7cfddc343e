#include "tools/vmm/guest_commands.hpp"

#include <algorithm>
#include <array>
#include <mutex>
#include <span>

#include "tools/vmm/log.hpp"
#include "tools/vmm/preflight_report.hpp"
#include "tools/vmm/status.hpp"

namespace tools {

using migration::Outcome;
using migration::Reason;
using nlohmann::json;
using vmm::Result;

namespace {

// What one client, and all of them, may wait for at once. All: clients come and go, their requests stay.
constexpr std::ptrdiff_t kMaxWaitingOfOne = 16;
constexpr std::size_t kMaxWaiting = 1024;

// How long one attempt to connect takes: nothing ends it from outside.
constexpr vmm::Duration kConnectAttempt = std::chrono::seconds{3};

// The bytes of a transport that somebody else can end at any time.
class SharedTransport final : public migration::Transport {
  public:
    explicit SharedTransport(std::shared_ptr<migration::Transport> transport)
        : transport_(std::move(transport)) {}

    Result<void> introduce(const migration::Hello& hello, const migration::Deadline& deadline) override {
        return transport_->introduce(hello, deadline);
    }
    Result<void> send(std::span<const iovec> parts, const migration::Deadline& deadline) override {
        return transport_->send(parts, deadline);
    }
    Result<void> receive(std::span<const iovec> parts, const migration::Deadline& deadline) override {
        return transport_->receive(parts, deadline);
    }
    void shutdown() override { transport_->shutdown(); }
    void abort() override { transport_->abort(); }
    migration::LinkSecurity security() const override { return transport_->security(); }
    std::string peer() const override { return transport_->peer(); }

  private:
    const std::shared_ptr<migration::Transport> transport_;
};

Reason tls_unusable(const vmm::Error& error, const LinkOptions& link) {
    return {"tls_unusable", error.text(), link.tls_dir, "see docs/tls.md for how the files are made"};
}

}  // namespace

// Connects, until it is shut down: from then on whatever waits for the peer fails.
class GuestCommands::PreflightConnector final : public migration::Connector {
  public:
    explicit PreflightConnector(std::unique_ptr<migration::Connector> connector)
        : connector_(std::move(connector)) {}

    Result<std::unique_ptr<migration::Transport>> connect(const migration::Deadline& deadline) override {
        for (;;) {
            auto made = connector_->connect({std::min(kConnectAttempt, deadline.progress), deadline.at});
            const std::lock_guard lock{mutex_};
            if (shut_) {
                return vmm::fail(vmm::Code::cancelled, "the guest has ended");
            }
            if (made) {
                transport_ = std::move(*made);
                return std::unique_ptr<migration::Transport>{std::make_unique<SharedTransport>(transport_)};
            }
            if (made.error().sys_errno() != ETIMEDOUT ||
                (deadline.at && vmm::real_clock().now() >= *deadline.at)) {
                return made;
            }
        }
    }
    std::string address() const override { return connector_->address(); }

    // Any thread.
    void shutdown() {
        const std::lock_guard lock{mutex_};
        shut_ = true;
        if (transport_ != nullptr) {
            transport_->shutdown();
        }
    }

  private:
    const std::unique_ptr<migration::Connector> connector_;
    std::mutex mutex_;
    bool shut_ = false;
    std::shared_ptr<migration::Transport> transport_;
};

GuestCommands::GuestCommands(vmm::EventLoop& loop, ControlServer& server, std::string name, std::string peer,
                             SandboxOptions sandbox)
    : loop_(loop),
      server_(server),
      name_(std::move(name)),
      peer_(std::move(peer)),
      sandbox_(std::move(sandbox)) {
}

GuestCommands::~GuestCommands() = default;

Result<std::unique_ptr<GuestCommands>> GuestCommands::create(vmm::EventLoop& loop, ControlServer& server,
                                                             std::string name, std::string peer,
                                                             SandboxOptions sandbox) {
    std::unique_ptr<GuestCommands> commands{
        new GuestCommands{loop, server, std::move(name), std::move(peer), std::move(sandbox)}};
    commands->lifecycle_worker_ = TRY(Worker::start("commands", vmm::ThreadRole::machine));
    commands->preflight_worker_ = TRY(Worker::start("preflight", vmm::ThreadRole::migration));
    return commands;
}

void GuestCommands::attach(migration::Guest& guest, MigrationService& migrations) {
    guest_ = &guest;
    migrations_ = &migrations;
    owned_since_ = vmm::real_clock().now();
}

void GuestCommands::request(ControlServer::Client client, const std::string& line) {
    const ParsedRequest parsed = parse_request(line);
    if (!parsed.body) {
        refuse(client, parsed.id,
               {"invalid", parsed.body.error().text(), "control socket", "docs/json.md lists the requests"});
        return;
    }
    std::visit([&](const auto& body) { handle({client, parsed.id}, body); }, *parsed.body);
}

void GuestCommands::gone(ControlServer::Client client) {
    subscribers_.erase(client);
}

std::optional<Reason> GuestCommands::obstacle(ControlServer::Client client) const {
    if (guest_ == nullptr) {
        return Reason{"arriving", "the guest has not arrived yet", name_,
                      "ask again when its migration is over"};
    }
    if (const auto end = guest_->lifecycle->end()) {
        return ended_reason(*end);
    }
    if (settling_) {
        return Reason{"guest_ended", "the guest has ended", name_, "start it again"};
    }
    const auto waiting = std::count_if(pending_.begin(), pending_.end(),
                                       [&](const auto& entry) { return entry.second.client == client; });
    if (waiting >= kMaxWaitingOfOne || pending_.size() >= kMaxWaiting) {
        return Reason{"busy", "too many requests wait for their answers", name_,
                      "ask again when some were answered"};
    }
    return std::nullopt;
}

Reason GuestCommands::outcome_unknown(std::string_view what) const {
    return {"outcome_unknown", std::string{what}, fmt::format("migration to {}", migrations_->peer()),
            fmt::format("find out there: where it runs, `vmm resolve {0} --discard`; else end its process "
                        "there, then `vmm resolve {0} --resume`",
                        name_)};
}

Reason GuestCommands::ended_reason(const vmm::GuestEnd& end) const {
    if (end.reason == vmm::GuestEnd::Reason::handed_over) {
        return {"moved", fmt::format("the guest has moved to {}", migrations_->peer()), name_,
                "ask its control socket there"};
    }
    return {"guest_ended", end.text.empty() ? "the guest has ended" : "the guest has ended: " + end.text,
            name_, "start it again"};
}

void GuestCommands::handle(const Asked& asked, const StatusRequest&) {
    json status =
        guest_ == nullptr ? status_of_arriving(name_, peer_) : status_of(*guest_, *migrations_, owned_since_);
    add_sandbox(status, sandbox_);
    ok(asked.client, asked.id, {{"status", std::move(status)}});
}

void GuestCommands::handle(const Asked& asked, const PauseRequest&) {
    on_lifecycle(Kind::pause, asked, [](vmm::Lifecycle& lifecycle) { return lifecycle.pause(); });
}

void GuestCommands::handle(const Asked& asked, const ResumeRequest&) {
    on_lifecycle(Kind::resume, asked, [](vmm::Lifecycle& lifecycle) { return lifecycle.resume(); });
}

void GuestCommands::handle(const Asked& asked, const StopRequest&) {
    on_lifecycle(Kind::stop, asked, [](vmm::Lifecycle& lifecycle) {
        lifecycle.stop();
        return Result<void>{};
    });
}

void GuestCommands::handle(const Asked& asked, const EventsRequest&) {
    subscribers_.insert(asked.client);
    ok(asked.client, asked.id);
    server_.send(asked.client, line_of(state_event()));
}

void GuestCommands::handle(const Asked& asked, const MigrateRequest& request) {
    if (const auto reason = obstacle(asked.client)) {
        return refuse(asked.client, asked.id, *reason);
    }
    if (migrations_->state() == MigrationService::State::unknown) {
        return refuse(asked.client, asked.id,
                      outcome_unknown("the outcome of the last migration is unknown"));
    }
    if (migrations_->state() != MigrationService::State::idle) {
        return refuse(asked.client, asked.id,
                      {"busy", fmt::format("a migration to {} is under way already", migrations_->peer()),
                       name_, fmt::format("`vmm cancel {}` ends it", name_)});
    }
    auto connector = make_connector(request.to, request.link);
    if (!connector) {
        return refuse(asked.client, asked.id, tls_unusable(connector.error(), request.link));
    }
    if (const auto started = migrations_->start(request, std::move(*connector)); !started) {
        return refuse(asked.client, asked.id,
                      {"cannot_start", started.error().text(), name_,
                       "put that right, or start the guest with another --state-dir"});
    }
    add(Kind::migrate, asked);
}

void GuestCommands::handle(const Asked& asked, const CancelRequest&) {
    if (const auto reason = obstacle(asked.client)) {
        return refuse(asked.client, asked.id, *reason);
    }
    if (migrations_->state() == MigrationService::State::unknown) {
        return refuse(asked.client, asked.id,
                      outcome_unknown("too late: the destination may have the guest"));
    }
    if (migrations_->state() == MigrationService::State::idle) {
        return refuse(
            asked.client, asked.id,
            {"no_migration", "no migration is under way", name_, fmt::format("see `vmm status {}`", name_)});
    }
    if (!migrations_->cancel()) {
        return refuse(asked.client, asked.id,
                      {"too_late", "too late: the guest is being handed over", name_, "migrate it back"});
    }
    add(Kind::cancel, asked);
}

void GuestCommands::handle(const Asked& asked, const ResolveRequest& request) {
    if (const auto reason = obstacle(asked.client)) {
        return refuse(asked.client, asked.id, *reason);
    }
    if (!migrations_->resolve(request.resolution)) {
        return refuse(asked.client, asked.id,
                      {"nothing_to_resolve", "no migration's outcome is unknown", name_,
                       fmt::format("see `vmm status {}`", name_)});
    }
    add(request.resolution == migration::Resolution::resume ? Kind::resolve_resume : Kind::resolve_discard,
        asked);
}

void GuestCommands::handle(const Asked& asked, const PreflightRequest& request) {
    if (const auto reason = obstacle(asked.client)) {
        return refuse(asked.client, asked.id, *reason);
    }
    if (migrations_->state() != MigrationService::State::idle) {
        return refuse(asked.client, asked.id,
                      {"busy", fmt::format("a migration to {} is under way", migrations_->peer()), name_,
                       "ask again when it is over"});
    }
    if (preflight_ != nullptr) {
        return refuse(asked.client, asked.id,
                      {"busy", fmt::format("a preflight at {} is under way", preflight_->address()), name_,
                       "ask again when it is over"});
    }
    auto route = make_connector(request.to, request.link);
    if (!route) {
        return refuse(asked.client, asked.id, tls_unusable(route.error(), request.link));
    }
    const std::uint64_t number = add(Kind::preflight, asked);
    preflight_ = std::make_shared<PreflightConnector>(std::move(*route));
    preflight_worker_->post([this, number, to = request.to, connector = preflight_] {
        migration::MachineSource vm{*guest_->machine, *guest_->lifecycle, guest_->epoch};
        const auto result = migration::run_preflight(vm, *connector, vmm::real_clock());
        json report = result ? preflight_json(*result) : preflight_json(result.error(), to.text());
        loop_.post([this, number, report = std::move(report)] {
            preflight_.reset();
            if (settling_) {
                return;  // ended with the guest, and finish() says so
            }
            if (const auto pending = take(number)) {
                ok(pending->client, pending->id, {{"preflight", report}});
            }
        });
    });
}

void GuestCommands::on_lifecycle(Kind kind, const Asked& asked, Result<void> (*operation)(vmm::Lifecycle&)) {
    if (const auto reason = obstacle(asked.client)) {
        return refuse(asked.client, asked.id, *reason);
    }
    if (migrations_->state() == MigrationService::State::unknown) {
        return refuse(asked.client, asked.id,
                      outcome_unknown("a migration's outcome is unknown; the guest stays paused"));
    }
    const std::uint64_t number = add(kind, asked);
    lifecycle_worker_->post([this, number, operation] {
        auto done = operation(*guest_->lifecycle);
        loop_.post([this, number, done = std::move(done)] { lifecycle_done(number, done); });
    });
}

void GuestCommands::lifecycle_done(std::uint64_t number, const Result<void>& done) {
    const auto found = pending_.find(number);
    // Who stopped the guest hears of it when its name is free; who waited too long was answered already.
    if (found == pending_.end() || found->second.kind == Kind::stop) {
        return;
    }
    const Pending pending = *take(number);
    if (!done) {
        const auto end = guest_->lifecycle->end();
        return refuse(pending.client, pending.id,
                      end ? ended_reason(*end) : Reason{"failed", done.error().text(), name_, "see the log"});
    }
    ok(pending.client, pending.id);
    publish(state_event());
}

void GuestCommands::stop(std::string_view why) {
    if (guest_ == nullptr || settling_) {
        return;
    }
    if (migrations_->state() == MigrationService::State::unknown) {
        log_line("{}: guest {} is not stopped: {}", why, name_,
                 one_line(outcome_unknown(
                     "the outcome of its migration is unknown, so this may be its only copy")));
        return;
    }
    lifecycle_worker_->post([this] { guest_->lifecycle->stop(); });
}

void GuestCommands::migration_events(std::span<const migration::Event> events) {
    std::set<ControlServer::Client> listeners = subscribers_;
    for (const auto& [number, pending] : pending_) {
        if (pending.kind == Kind::migrate) {
            listeners.insert(pending.client);
        }
    }
    for (const migration::Event& event : events) {
        if (listeners.empty()) {
            return;
        }
        const std::string line = line_of(migration::to_json(event));
        for (const ControlServer::Client listener : listeners) {
            server_.send(listener, line);
        }
    }
}

void GuestCommands::migration_outcome(Outcome outcome) {
    if (outcome == Outcome::completed) {
        return;  // the end of the guest follows, and with it the last words
    }
    for (const Pending& pending : take_all({Kind::migrate})) {
        ok(pending.client, pending.id, {{"report", migration::to_json(migrations_->report())}});
    }
    if (outcome == Outcome::unknown) {
        const Reason reason =
            outcome_unknown("the outcome of the guest's migration is unknown; it stays paused here");
        log_line("guest {}: {}", name_, one_line(reason));
        for (const Pending& pending : take_all({Kind::pause, Kind::resume, Kind::stop})) {
            Reason waiting = reason;
            waiting.what += ", and this request is carried out if it goes on here";
            refuse(pending.client, pending.id, waiting);
        }
        return;
    }
    for (const Pending& pending : take_all({Kind::cancel})) {
        if (outcome == Outcome::cancelled) {
            ok(pending.client, pending.id);
        } else {
            refuse(pending.client, pending.id, {"too_late", "the migration had failed already", name_, ""});
        }
    }
    // The destination may have answered before the person's decision was looked at.
    for (const Pending& pending : take_all({Kind::resolve_resume})) {
        ok(pending.client, pending.id);
    }
    for (const Pending& pending : take_all({Kind::resolve_discard})) {
        refuse(pending.client, pending.id,
               {"overtaken", "the destination said meanwhile that it does not run the guest; it goes on here",
                name_, fmt::format("`vmm stop {}` ends it", name_)});
    }
}

void GuestCommands::settle(std::function<void()> done) {
    settling_ = true;
    if (preflight_ != nullptr) {
        preflight_->shutdown();  // its peer may be silent, and the guest's name and memory wait for it
    }
    // Behind everything that was asked before.
    preflight_worker_->post([this, done = std::move(done)] {
        loop_.post([this, done] { lifecycle_worker_->post([this, done] { loop_.post(done); }); });
    });
}

void GuestCommands::finish(const vmm::GuestEnd& end, int status, const migration::Report& report) {
    const bool moved = end.reason == vmm::GuestEnd::Reason::handed_over;
    for (auto& [number, pending] : std::exchange(pending_, {})) {
        switch (pending.kind) {
            case Kind::migrate:
                ok(pending.client, pending.id, {{"report", migration::to_json(report)}});
                break;
            case Kind::resolve_discard:
                if (moved) {
                    ok(pending.client, pending.id);
                } else {
                    refuse(pending.client, pending.id, ended_reason(end));
                }
                break;
            case Kind::stop:
                if (!moved) {
                    ok(pending.client, pending.id);
                    break;
                }
                [[fallthrough]];
            case Kind::pause:
            case Kind::resume:
            case Kind::cancel:
            case Kind::resolve_resume:
            case Kind::preflight:
                refuse(pending.client, pending.id, ended_reason(end));
                break;
        }
    }
    constexpr std::array<const char*, 5> reasons{"exit_port", "power_off", "crash", "stopped", "moved"};
    publish({{"event", "guest_ended"},
             {"reason", reasons[static_cast<std::size_t>(end.reason)]},
             {"status", status},
             {"text", end.text.empty() ? json(nullptr) : json(end.text)},
             {"at_ns", vmm::real_clock().now().time_since_epoch().count()}});
}

std::uint64_t GuestCommands::add(Kind kind, const Asked& asked) {
    pending_.emplace(next_number_, Pending{kind, asked.client, asked.id});
    return next_number_++;
}

std::optional<GuestCommands::Pending> GuestCommands::take(std::uint64_t number) {
    auto node = pending_.extract(number);
    return node ? std::optional{std::move(node.mapped())} : std::nullopt;
}

std::vector<GuestCommands::Pending> GuestCommands::take_all(std::initializer_list<Kind> kinds) {
    std::vector<Pending> taken;
    for (auto entry = pending_.begin(); entry != pending_.end();) {
        if (std::find(kinds.begin(), kinds.end(), entry->second.kind) != kinds.end()) {
            taken.push_back(std::move(entry->second));
            entry = pending_.erase(entry);
        } else {
            ++entry;
        }
    }
    return taken;
}

void GuestCommands::ok(ControlServer::Client client, const json& id, json results) {
    server_.send(client, ok_line(id, std::move(results)));
}

void GuestCommands::refuse(ControlServer::Client client, const json& id, const Reason& reason) {
    server_.send(client, error_line(id, reason));
}

void GuestCommands::publish(const json& event) {
    const std::string line = line_of(event);
    for (const ControlServer::Client subscriber : subscribers_) {
        server_.send(subscriber, line);
    }
}

json GuestCommands::state_event() const {
    const char* state = "arriving";
    if (guest_ != nullptr) {
        state = guest_->lifecycle->state() == vmm::RunState::paused ? "paused" : "running";
    }
    return {{"event", "guest_state"},
            {"state", state},
            {"at_ns", vmm::real_clock().now().time_since_epoch().count()}};
}

}  // namespace tools
