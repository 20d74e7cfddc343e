#include "tools/vmm/reception.hpp"

#include "migration/transport_socket.hpp"
#include "tools/vmm/log.hpp"
#include "tools/vmm/places.hpp"
#include "vmm/base/thread.hpp"

namespace tools {

using migration::SocketTransport;
using vmm::Code;
using vmm::Result;

namespace {

// How long a guest that has ended waits for the source to hear that it had begun.
constexpr vmm::Duration kAcknowledgeLimit = std::chrono::seconds{2};

// Runs `function` on the loop's thread and waits for it.
Result<void> on_loop(vmm::EventLoop& loop, const std::function<Result<void>()>& function) {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Result<void>> result;
    loop.post([&] {
        auto done = function();
        const std::lock_guard lock{mutex};
        result = std::move(done);
        changed.notify_all();
    });
    std::unique_lock lock{mutex};
    changed.wait(lock, [&] { return result.has_value(); });
    return std::move(*result);
}

Result<std::unique_ptr<migration::Transport>> transport_of(vmm::UniqueFd socket, std::string peer,
                                                           std::unique_ptr<migration::TlsChannel> tls) {
    auto connected = TRY(migration::ConnectedSocket::adopt(std::move(socket), std::move(peer)));
    if (tls) {
        return std::unique_ptr<migration::Transport>{
            migration::TlsTransport::adopt(std::move(connected), std::move(tls))};
    }
    return std::unique_ptr<migration::Transport>{std::make_unique<SocketTransport>(std::move(connected))};
}

std::string tls_text(const migration::LinkSecurity& link) {
    if (!link.tls) {
        return link.exposed ? ", in the clear" : "";
    }
    return fmt::format(", {} {}, encrypted {}, decrypted {}", link.tls->version, link.tls->cipher,
                       link.tls->kernel_sends ? "by the kernel" : "here",
                       link.tls->kernel_receives ? "by the kernel" : "here");
}

ChannelMessage message_of(ChannelMessage::Kind kind) {
    ChannelMessage message;
    message.kind = kind;
    return message;
}

}  // namespace

Result<Reception::Start> Reception::prepare(const ReceiveOptions& options, const Sandbox& sandbox,
                                            EndSignals signals, migration::EventSink* extra) {
    const std::string directory = TRY(state_directory(options.guest.state_dir));
    auto records = TRY(migration::RecordDirectory::open(directory));
    const migration::Uuid boot_id = TRY(migration::host_boot_id());
    auto process = TRY(GuestProcess::create(options.guest, sandbox, std::move(signals), extra));
    auto refuser = TRY(Worker::start("refuse", vmm::ThreadRole::migration));
    return Start{std::move(records), std::move(process), std::move(refuser), boot_id};
}

Result<int> Reception::serve(const ReceiveOptions& options, Host host, Accepted accepted, EndSignals signals,
                             migration::EventSink* extra) {
    std::unique_ptr<migration::Transport> control =
        TRY(transport_of(std::move(accepted.socket), accepted.peer, std::move(accepted.tls)));
    auto start = prepare(options, host.sandbox, std::move(signals), extra);
    if (!start) {
        migration::MessageStream stream{std::move(control)};
        (void)stream.send(migration::HelloReply{migration::HelloStatus::busy, migration::kProtocolVersion,
                                                start.error().text().substr(0, migration::kMaxTextBytes)});
        return vmm::Failure{std::move(start).error()};
    }
    Reception reception{options, std::move(host), std::move(*start), accepted, extra};
    reception.link_ = tls_text(control->security());
    reception.session_ = std::make_unique<migration::DestinationSession>(
        accepted.hello, reception.faults_.wrap(std::move(control)),
        migration::DestinationServices{reception.vm_, reception.faults_.records(), reception.faults_.clock(),
                                       reception.faults_.events(), reception.start_.boot_id});
    if (options.tls != nullptr) {
        reception.admission_ = std::make_unique<TlsAdmission>(
            *options.tls, options.link.tls_peer, accepted.hello.session,
            [&reception](const migration::Hello& hello, std::unique_ptr<migration::Transport> transport) {
                reception.admit(hello, std::move(transport));
            });
    }
    // First the one without which nothing has happened yet. The source learns from the closed connection.
    reception.channel_thread_ = TRY(vmm::start_thread("channel", vmm::ThreadRole::migration,
                                                      [&reception] { reception.listen_to_listener(); }));
    reception.session_thread_ = TRY(
        vmm::start_thread("destination", vmm::ThreadRole::setup, [&reception] { reception.run_session(); }));
    return reception.start_.process->serve();
}

Reception::Reception(const ReceiveOptions& options, Host host, Start start, Accepted& accepted,
                     migration::EventSink* extra)
    : options_(options),
      kvm_(std::move(host.kvm)),
      start_(std::move(start)),
      hello_(accepted.hello),
      peer_(accepted.peer),
      channel_(std::move(accepted.channel)),
      extra_(extra),
      vm_(host.offer, options, {accepted.hello.purpose, accepted.serial_taken},
          [this](const vmm::MachineConfig& config, std::vector<devices::virtio::Config> virtio) {
              return make_machine(config, std::move(virtio));
          }),
      faults_(options.fault, start_.records, *this) {
    GuestProcess& process = *start_.process;
    // Whether or not the guest has come, this decides it for ever. Not on the control thread: the session may
    // hold what the answer needs, and wait for the control thread.
    process.on_early_signal([this] {
        stopped_ = true;
        start_.refuser->post([this] { (void)session_->query(); });
    });
    process.before_release([this] { await_session(); });
    process.after_release([this] { (void)channel_.send(message_of(ChannelMessage::Kind::released)); });
}

Reception::~Reception() {
    start_.refuser.reset();
    channel_.shut();
    if (channel_thread_.joinable()) {
        channel_thread_.join();
    }
    admission_.reset();
    if (session_thread_.joinable()) {
        session_thread_.join();
    }
}

Result<std::unique_ptr<vmm::Machine>> Reception::make_machine(vmm::MachineConfig config,
                                                              std::vector<devices::virtio::Config> virtio) {
    if (!options_.name.empty()) {
        config.name = options_.name;
    }
    GuestProcess& process = *start_.process;
    TRY(on_loop(process.loop(), [&] { return process.open_control(config.name, peer_); }));
    log_line("receiving guest {} ({} MiB, {} vCPU) from {}{}, session {}", config.name,
             config.ram_bytes >> 20, config.vcpus, peer_, link_, migration::to_hex(hello_.session));
    return process.make_machine(kvm_, std::move(config), std::move(virtio));
}

void Reception::on(const migration::Event& event) {
    const auto* entered = std::get_if<migration::DestinationEntered>(&event.what);
    if (entered != nullptr && entered->phase == migration::DestinationPhase::started) {
        (void)channel_.send(message_of(ChannelMessage::Kind::owned));
        start_.process->loop().post([this] { take_guest(); });
    }
    if (extra_ != nullptr) {
        extra_->on(event);
    }
}

void Reception::take_guest() {
    const std::string name = vm_.guest().machine->config().name;
    if (const auto owned = start_.process->own(std::move(vm_.guest())); !owned) {
        log_line("guest {}: {}", name, owned.error().text());
        return start_.process->quit(kFailureStatus);
    }
    log_line("guest {} runs here now, session {}", name, migration::to_hex(hello_.session));
}

void Reception::run_session() {
    const bool owned = session_->run();
    ChannelMessage message = message_of(ChannelMessage::Kind::over);
    message.acknowledged = owned && session_->destination().acknowledged();
    (void)channel_.send(message);
    {
        const std::lock_guard lock{mutex_};
        over_ = true;
    }
    changed_.notify_all();
    if (owned) {
        return;
    }
    if (hello_.purpose == migration::Purpose::preflight) {
        return start_.process->quit(0);
    }
    log_line("session {} from {} brought no guest: {}", migration::to_hex(hello_.session), peer_,
             stopped_ ? "stopped by a signal" : session_->destination().failure());
    start_.process->quit(kFailureStatus);
}

void Reception::listen_to_listener() {
    for (;;) {
        auto received = channel_.receive(true);
        if (!received || !*received) {
            return;
        }
        const ChannelMessage& message = (*received)->message;
        if (message.kind == ChannelMessage::Kind::query) {
            ChannelMessage answer = message_of(ChannelMessage::Kind::answer);
            answer.number = message.number;
            answer.outcome = session_->query();
            (void)channel_.send(answer);
        } else if (message.kind == ChannelMessage::Kind::join) {
            join(message.hello, std::move((*received)->descriptor), message.peer);
        }
    }
}

void Reception::join(const migration::Hello& hello, vmm::UniqueFd socket, const std::string& peer) {
    if (admission_) {
        return admission_->take(std::move(socket), peer);
    }
    if (auto transport = SocketTransport::adopt(std::move(socket), peer)) {
        admit(hello, std::move(*transport));
    }
}

void Reception::admit(const migration::Hello& hello, std::unique_ptr<migration::Transport> transport) {
    auto wrapped = faults_.wrap(std::move(transport));
    if (hello.purpose == migration::Purpose::resume) {
        session_->resume(hello, std::move(wrapped));
    } else {
        session_->join(hello, std::move(wrapped));
    }
}

// The source hears `Running` even from a guest that has ended already.
void Reception::await_session() {
    std::unique_lock lock{mutex_};
    if (!changed_.wait_for(lock, kAcknowledgeLimit, [this] { return over_; })) {
        lock.unlock();
        (void)session_->query();
    }
}

}  // namespace tools
