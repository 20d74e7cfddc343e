// Reception: the process of one session of `vmm receive`. If the session brings a guest the process becomes
// the guest's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "migration/destination_session.hpp"
#include "tools/vmm/faults.hpp"
#include "tools/vmm/listener.hpp"
#include "tools/vmm/receiving_vm.hpp"
#include "tools/vmm/tls_admission.hpp"

namespace tools {

// Threads: the control thread calls serve(); one runs the session; one listens to the listener, so that Query
// is answered whatever the other two are busy with.
class Reception final : private migration::EventSink {
  public:
    // What the listener found or made; offer and sandbox outlive the session.
    struct Host {
        vmm::Kvm kvm;
        const vmm::HostOffer& offer;  // see ReceivingVm
        const Sandbox& sandbox;
    };
    // Serves `accepted` to its end; the exit status. An error was told to the source already.
    static vmm::Result<int> serve(const ReceiveOptions& options, Host host, Accepted accepted,
                                  EndSignals signals, migration::EventSink* extra);
    ~Reception() override;
    Reception(const Reception&) = delete;
    Reception& operator=(const Reception&) = delete;

  private:
    struct Start {
        migration::RecordDirectory records;
        std::unique_ptr<GuestProcess> process;
        std::unique_ptr<Worker> refuser;
        migration::Uuid boot_id{};
    };
    static vmm::Result<Start> prepare(const ReceiveOptions& options, const Sandbox& sandbox,
                                      EndSignals signals, migration::EventSink* extra);

    Reception(const ReceiveOptions& options, Host host, Start start, Accepted& accepted,
              migration::EventSink* extra);

    void on(const migration::Event& event) override;
    vmm::Result<std::unique_ptr<vmm::Machine>> make_machine(vmm::MachineConfig config,
                                                            std::vector<devices::virtio::Config> virtio);
    void run_session();
    void listen_to_listener();
    // A further connection, to the session it names.
    void admit(const migration::Hello& hello, std::unique_ptr<migration::Transport> transport);
    void join(const migration::Hello& hello, vmm::UniqueFd socket, const std::string& peer);
    void take_guest();
    void await_session();

    const ReceiveOptions& options_;
    const vmm::Kvm kvm_;
    Start start_;
    const migration::Hello hello_;
    const std::string peer_;
    std::string link_;  // what protects it, for the log
    SessionChannel channel_;
    migration::EventSink* const extra_;
    ReceivingVm vm_;
    Faults faults_;
    std::unique_ptr<migration::DestinationSession> session_;
    std::unique_ptr<TlsAdmission> admission_;  // none: connections are plain

    std::atomic<bool> stopped_ = false;  // by a signal, before the guest had come

    std::mutex mutex_;
    std::condition_variable changed_;
    bool over_ = false;

    std::thread session_thread_;
    std::thread channel_thread_;
};

}  // namespace tools
