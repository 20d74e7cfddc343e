// GuestProcess: what a process that owns a guest, or is about to, consists of. `run` and a session of
// `receive` differ only in how the guest comes to be.
#pragma once

#include <functional>
#include <memory>

#include "tools/vmm/board_setup.hpp"
#include "tools/vmm/control_server.hpp"
#include "tools/vmm/guest_commands.hpp"
#include "tools/vmm/migration_service.hpp"
#include "tools/vmm/sandbox.hpp"
#include "tools/vmm/signals.hpp"
#include "tools/vmm/threads.hpp"

namespace tools {

inline constexpr int kFailureStatus = 4;

// What of the command line concerns every guest process.
struct GuestOptions {
    std::string control;    // path of the control socket; empty: by name
    std::string state_dir;  // of the handover records; empty: beside the control sockets
    devices::SerialConfig serial{devices::SerialConfig::Kind::stdio, {}};
    std::vector<devices::virtio::Config> devices;
    vmm::Backing backing = vmm::Backing::thp;
    SandboxOptions sandbox;
};

// Of the serial port and the consoles.
std::vector<devices::SerialConfig> back_ends(const GuestOptions& options);
// Whether one of them is our own standard input and output.
bool uses_stdio(const GuestOptions& options);

// The control thread is the one that calls serve(). Unless said otherwise functions are called by it, or
// before it.
class GuestProcess {
  public:
    static vmm::Result<std::unique_ptr<GuestProcess>> create(GuestOptions options, const Sandbox& sandbox,
                                                             EndSignals signals, migration::EventSink* extra);
    ~GuestProcess();

    vmm::EventLoop& loop() { return *loop_; }

    // With these virtio devices, in their windows. Any thread, once.
    vmm::Result<std::unique_ptr<vmm::Machine>> make_machine(const vmm::Kvm& kvm, vmm::MachineConfig config,
                                                            std::vector<devices::virtio::Config> virtio);

    // Takes the name; `peer` is where the guest comes from, if it does. Code::invalid: it is in use.
    vmm::Result<void> open_control(const std::string& name, const std::string& peer);
    // The guest is ours: serves it, and its end ends serve(). After open_control(). Set-up is over: the
    // control thread is confined.
    vmm::Result<void> own(migration::Guest guest);

    // What a signal does while there is no guest yet; a guest that comes all the same is stopped.
    void on_early_signal(std::function<void()> call) { early_signal_ = std::move(call); }
    // Called when the guest has ended and before whatever belongs to it is given back; its control socket is
    // closed.
    void before_release(std::function<void()> call) { before_release_ = std::move(call); }
    // Called when everything is given back, before anybody is told.
    void after_release(std::function<void()> call) { after_release_ = std::move(call); }

    // Serves until the guest has ended or quit(); the exit status.
    int serve();
    // Any thread.
    void quit(int status);

  private:
    GuestProcess(GuestOptions options, const Sandbox& sandbox, EndSignals signals,
                 migration::EventSink* extra)
        : options_(std::move(options)), sandbox_(sandbox), extra_(extra), signals_(std::move(signals)) {}

    void on_signal();
    void on_guest_end();
    void finish(const vmm::GuestEnd& end);
    void say_farewell(const vmm::GuestEnd& end, const migration::Report& report) const;

    const GuestOptions options_;
    const Sandbox& sandbox_;
    migration::EventSink* const extra_;
    std::string name_;
    std::function<void()> early_signal_;
    std::function<void()> before_release_;
    std::function<void()> after_release_;
    int status_ = kFailureStatus;
    bool stop_wanted_ = false;  // before there was a guest
    bool ending_ = false;

    // In this order they are made, and used by what comes after them.
    EndSignals signals_;
    std::unique_ptr<vmm::EventLoop> loop_;
    vmm::EventLoop::Watch signal_watch_;
    std::unique_ptr<IoThread> io_;
    devices::Board board_;
    migration::Guest guest_;
    vmm::EventLoop::Watch end_watch_;
    std::unique_ptr<MigrationService> migrations_;
    std::unique_ptr<ControlServer> server_;
    std::unique_ptr<GuestCommands> commands_;
};

}  // namespace tools
