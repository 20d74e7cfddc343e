// GuestCommands: what clients of the control socket, and signals, ask of a guest. What may wait (for a
// handover, for the network) waits on a worker, so that the control thread always answers.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>

#include "tools/vmm/control_server.hpp"
#include "tools/vmm/migration_service.hpp"
#include "tools/vmm/sandbox.hpp"
#include "tools/vmm/threads.hpp"

namespace tools {

// On the loop's thread only.
class GuestCommands {
  public:
    // The guest of that name is still arriving, or not started yet; `peer` is where it comes from. What can
    // fail is made here: attach() may come when the guest has no other home any more.
    static vmm::Result<std::unique_ptr<GuestCommands>> create(vmm::EventLoop& loop, ControlServer& server,
                                                              std::string name, std::string peer,
                                                              SandboxOptions sandbox);
    ~GuestCommands();
    GuestCommands(const GuestCommands&) = delete;
    GuestCommands& operator=(const GuestCommands&) = delete;

    // The guest is ours.
    void attach(migration::Guest& guest, MigrationService& migrations);

    void request(ControlServer::Client client, const std::string& line);
    void gone(ControlServer::Client client);

    // Ends the guest, as `why` asks; refused, in words on standard error, while a migration's outcome is
    // unknown.
    void stop(std::string_view why);

    // From the migration service.
    void migration_events(std::span<const migration::Event> events);
    void migration_outcome(migration::Outcome outcome);

    // The guest has ended. Calls `done` once no worker uses it any more; what comes from now on is refused.
    void settle(std::function<void()> done);
    // Afterwards: the last word to everybody who waits.
    void finish(const vmm::GuestEnd& end, int status, const migration::Report& report);

  private:
    GuestCommands(vmm::EventLoop& loop, ControlServer& server, std::string name, std::string peer,
                  SandboxOptions sandbox);

    class PreflightConnector;
    enum class Kind : std::uint8_t {
        pause,
        resume,
        stop,
        migrate,
        cancel,
        resolve_resume,
        resolve_discard,
        preflight
    };
    struct Pending {
        Kind kind;
        ControlServer::Client client;
        nlohmann::json id;
    };
    struct Asked {
        ControlServer::Client client;
        const nlohmann::json& id;
    };

    void handle(const Asked& asked, const StatusRequest& request);
    void handle(const Asked& asked, const PauseRequest& request);
    void handle(const Asked& asked, const ResumeRequest& request);
    void handle(const Asked& asked, const StopRequest& request);
    void handle(const Asked& asked, const EventsRequest& request);
    void handle(const Asked& asked, const CancelRequest& request);
    void handle(const Asked& asked, const MigrateRequest& request);
    void handle(const Asked& asked, const ResolveRequest& request);
    void handle(const Asked& asked, const PreflightRequest& request);

    // Why nothing can be asked of the guest now, or by that client.
    std::optional<migration::Reason> obstacle(ControlServer::Client client) const;
    migration::Reason outcome_unknown(std::string_view what) const;
    migration::Reason ended_reason(const vmm::GuestEnd& end) const;
    void on_lifecycle(Kind kind, const Asked& asked, vmm::Result<void> (*operation)(vmm::Lifecycle&));
    void lifecycle_done(std::uint64_t number, const vmm::Result<void>& done);
    std::uint64_t add(Kind kind, const Asked& asked);
    // Takes a pending request out; nothing when it was answered already.
    std::optional<Pending> take(std::uint64_t number);
    std::vector<Pending> take_all(std::initializer_list<Kind> kinds);

    void ok(ControlServer::Client client, const nlohmann::json& id,
            nlohmann::json results = nlohmann::json::object());
    void refuse(ControlServer::Client client, const nlohmann::json& id, const migration::Reason& reason);
    void publish(const nlohmann::json& event);
    nlohmann::json state_event() const;

    vmm::EventLoop& loop_;
    ControlServer& server_;
    const std::string name_;
    const std::string peer_;
    const SandboxOptions sandbox_;
    migration::Guest* guest_ = nullptr;
    MigrationService* migrations_ = nullptr;
    vmm::TimePoint owned_since_;
    bool settling_ = false;

    std::map<std::uint64_t, Pending> pending_;
    std::uint64_t next_number_ = 1;
    std::set<ControlServer::Client> subscribers_;
    std::shared_ptr<PreflightConnector> preflight_;  // of the one under way
    // Last, so that they end first: their tasks use the rest.
    std::unique_ptr<Worker> lifecycle_worker_;
    std::unique_ptr<Worker> preflight_worker_;
};

}  // namespace tools
