#include "tools/vmm/guest_process.hpp"

#include <algorithm>
#include <cstring>

#include "tools/vmm/log.hpp"
#include "tools/vmm/path_checks.hpp"
#include "tools/vmm/places.hpp"

namespace tools {

using vmm::GuestEnd;
using vmm::Result;

namespace {

constexpr vmm::Duration kFlushSerial = std::chrono::seconds{2};
constexpr vmm::Duration kLastWords = std::chrono::seconds{1};

// As QEMU's isa-debug-exit: only odd statuses, so that none is mistaken for success.
int status_of(const GuestEnd& end) {
    switch (end.reason) {
        case GuestEnd::Reason::exit_port:
            return (end.value << 1 | 1) & 0xff;
        case GuestEnd::Reason::crash:
            return kFailureStatus;
        case GuestEnd::Reason::power_off:
        case GuestEnd::Reason::stopped:
        case GuestEnd::Reason::handed_over:
            return 0;
    }
    return kFailureStatus;
}

}  // namespace

std::vector<devices::SerialConfig> back_ends(const GuestOptions& options) {
    std::vector<devices::SerialConfig> all{options.serial};
    for (const devices::virtio::Config& config : options.devices) {
        if (const auto* console = std::get_if<devices::virtio::ConsoleConfig>(&config.what)) {
            all.push_back(console->backend);
        }
    }
    return all;
}

bool uses_stdio(const GuestOptions& options) {
    const auto all = back_ends(options);
    return std::any_of(all.begin(), all.end(), [](const devices::SerialConfig& config) {
        return config.kind == devices::SerialConfig::Kind::stdio;
    });
}

Result<std::unique_ptr<GuestProcess>> GuestProcess::create(GuestOptions options, const Sandbox& sandbox,
                                                           EndSignals signals, migration::EventSink* extra) {
    options.state_dir = TRY(state_directory(options.state_dir));
    // A guest that ran for a month is not to learn at its migration that it cannot leave.
    TRY(check_records(options.state_dir));
    std::unique_ptr<GuestProcess> process{
        new GuestProcess{std::move(options), sandbox, std::move(signals), extra}};
    process->loop_ = TRY(vmm::EventLoop::create());
    process->signal_watch_ = TRY(process->loop_->watch(
        process->signals_.fd(), EPOLLIN, [self = process.get()](std::uint32_t) { self->on_signal(); }));
    process->io_ = TRY(IoThread::start("io"));
    return process;
}

GuestProcess::~GuestProcess() = default;

Result<std::unique_ptr<vmm::Machine>> GuestProcess::make_machine(
    const vmm::Kvm& kvm, vmm::MachineConfig config, std::vector<devices::virtio::Config> virtio) {
    config.backing = options_.backing;
    devices::SerialEvents events;
    events.quit = [this] { loop_->post([this] { commands_->stop("Ctrl-]"); }); };
    events.failed = [](const vmm::Error& error) { log_line("output of the guest: {}", error.text()); };
    BuiltMachine built = TRY(build_machine(kvm, std::move(config),
                                           {options_.serial, std::move(events), std::move(virtio),
                                            [](const std::string& what) { log_text(what); }},
                                           io_->loop()));
    board_ = built.board;
    return std::move(built.machine);
}

Result<void> GuestProcess::open_control(const std::string& name, const std::string& peer) {
    const std::string path = TRY(control_place(options_, name));
    server_ = TRY(ControlServer::listen(
        *loop_, path,
        {[this](ControlServer::Client client, const std::string& line) { commands_->request(client, line); },
         [this](ControlServer::Client client) { commands_->gone(client); }}));
    name_ = name;
    auto commands = GuestCommands::create(*loop_, *server_, name, peer, options_.sandbox);
    if (!commands) {
        server_.reset();  // nobody would answer its clients
        return vmm::Failure{std::move(commands).error()};
    }
    commands_ = std::move(*commands);
    return {};
}

Result<void> GuestProcess::own(migration::Guest guest) {
    guest_ = std::move(guest);
    TRY(sandbox_.confine(vmm::ThreadRole::control));
    migrations_ = std::make_unique<MigrationService>(
        MigrationService::Environment{*loop_, guest_, options_.state_dir, extra_},
        MigrationService::Callbacks{
            [this](std::span<const migration::Event> events) { commands_->migration_events(events); },
            [this](migration::Outcome outcome) {
                commands_->migration_outcome(outcome);
                on_guest_end();
            }});
    commands_->attach(guest_, *migrations_);
    end_watch_ = TRY(loop_->watch(guest_.lifecycle->end_fd(), EPOLLIN, [this](std::uint32_t) {
        end_watch_.set_interest(0);
        on_guest_end();
    }));
    if (stop_wanted_) {
        commands_->stop("a signal");
    }
    return {};
}

int GuestProcess::serve() {
    if (const auto served = loop_->run(); !served) {
        log_text(served.error().text());
        return kFailureStatus;
    }
    return status_;
}

void GuestProcess::quit(int status) {
    loop_->post([this, status] {
        status_ = status;
        loop_->stop();
    });
}

void GuestProcess::on_signal() {
    while (const auto number = signals_.take()) {
        if (guest_.lifecycle != nullptr) {
            commands_->stop(::strsignal(*number));
        } else {
            stop_wanted_ = true;
            if (early_signal_) {
                early_signal_();
            }
        }
    }
}

// A migration that is under way notices for itself that its guest has ended; until then it uses the machine.
void GuestProcess::on_guest_end() {
    const auto end = guest_.lifecycle->end();
    if (!end || ending_ || migrations_->state() != MigrationService::State::idle) {
        return;
    }
    ending_ = true;
    commands_->settle([this, end = *end] { finish(end); });
}

void GuestProcess::finish(const GuestEnd& end) {
    status_ = status_of(end);
    const migration::Report report = migrations_->report();
    if (end.reason != GuestEnd::Reason::handed_over) {
        bool taken = board_.serial->flush(kFlushSerial);
        for (devices::virtio::Console* console : board_.consoles) {
            taken = console->flush(kFlushSerial) && taken;
        }
        if (!taken) {
            log_line("guest {}: nobody took the last output of serial port and console", name_);
        }
    }
    if (before_release_) {
        before_release_();
    }
    // Whoever hears of the end may start a guest of that name, on that terminal, in that memory at once.
    server_->close_listener();
    end_watch_.reset();
    guest_.lifecycle.reset();
    guest_.machine.reset();
    if (after_release_) {
        after_release_();
    }
    say_farewell(end, report);
    commands_->finish(end, status_, report);
    server_->drain(kLastWords);
    loop_->stop();
}

void GuestProcess::say_farewell(const GuestEnd& end, const migration::Report& report) const {
    if (end.reason == GuestEnd::Reason::crash) {
        log_line("guest {} crashed: {}", name_, end.text);
    } else if (end.reason == GuestEnd::Reason::handed_over) {
        if (!report.reasons.empty()) {
            log_line("guest {}: {} (session {})", name_, report.reasons.front().what, report.session);
        } else {
            log_line("guest {} runs at {} now (session {})", name_, migrations_->peer(), report.session);
        }
    }
}

}  // namespace tools
