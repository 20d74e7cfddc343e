#include "migration/destination_session.hpp"

#include <algorithm>

#include "migration/keep_alive.hpp"
#include "vmm/base/thread.hpp"

namespace migration {

using vmm::Code;
using vmm::Result;

namespace {

// What control may bring in one message: little before preflight, a frame of pages afterwards, and a whole
// machine only when it is due.
std::size_t limit_in(DestinationPhase phase) {
    switch (phase) {
        case DestinationPhase::greeted:
        case DestinationPhase::parked:
            return std::size_t{1} << 20;
        case DestinationPhase::verified:
            return MachineState::max_body;
        default:
            return Pages::max_body + max_payload(MessageType::pages);
    }
}

// Progress is enough of a deadline only for those who have something to lose: a manifest is due within
// seconds, the boot image within minutes.
Deadline deadline_in(DestinationPhase phase, vmm::TimePoint begin) {
    Deadline deadline;
    if (phase == DestinationPhase::greeted) {
        deadline.at = begin + std::chrono::seconds{10};
    } else if (phase == DestinationPhase::configured) {
        deadline.at = begin + std::chrono::minutes{5};
    }
    return deadline;
}

std::optional<std::uint16_t> common_version(const Hello& hello) {
    const bool ours =
        std::find(hello.versions.begin(), hello.versions.end(), kProtocolVersion) != hello.versions.end();
    return ours ? std::optional{kProtocolVersion} : std::nullopt;
}

HelloReply version_refusal() {
    return {
        HelloStatus::version, kProtocolVersion,
        fmt::format("this destination speaks version {} of the migration protocol only", kProtocolVersion)};
}

}  // namespace

DestinationSession::DestinationSession(const Hello& hello, std::unique_ptr<Transport> control,
                                       DestinationServices services)
    : destination_(hello, control->peer(), services),
      control_(std::make_shared<MessageStream>(std::move(control))) {
    if (!common_version(hello)) {
        (void)control_->send(version_refusal());
        control_->shutdown();
    } else {
        (void)control_->send(HelloReply{});  // a failure shows at the next receive
    }
}

DestinationSession::~DestinationSession() {
    close_streams();
}

bool DestinationSession::run() {
    const vmm::TimePoint begin = vmm::real_clock().now();
    for (;;) {
        const DestinationPhase phase = destination_.phase();
        const auto control = this->control();
        Result<Incoming> incoming = control->receive(limit_in(phase), deadline_in(phase, begin));
        const Result<bool> served =
            incoming ? serve(*control, std::move(*incoming)) : vmm::Failure{incoming.error()};
        if (served ? !*served : !interrupted(served.error())) {
            break;
        }
    }
    close_streams();
    return destination_.phase() == DestinationPhase::started;
}

std::shared_ptr<MessageStream> DestinationSession::control() const {
    const std::lock_guard lock{mutex_};
    return control_;
}

Result<bool> DestinationSession::serve(MessageStream& control, Incoming incoming) {
    // Without data connections control is stream 0.
    if (destination_.streams() == 0) {
        if (auto taken = take_pages(0, incoming, control)) {
            TRY(std::move(*taken));
            return true;
        }
    }
    // The last pages may be under way on data connections still; out of place or without such, nothing is
    // waited for.
    if (std::holds_alternative<Finish>(incoming.message) && destination_.streams() != 0 &&
        destination_.phase() == DestinationPhase::receiving) {
        TRY(wait_quiet());
    }
    vmm::Bytes payload(incoming.payload_bytes);
    if (!payload.empty()) {
        const iovec part = part_of(payload);
        TRY(control.receive_payload({&part, 1}));
    }
    const Step step = take(control, incoming.message, payload);
    for (const Message& reply : step.replies) {
        if (!control.send(reply)) {
            break;  // the next receive tells why
        }
    }
    if (step.close) {
        control.shutdown();
    }
    return !step.close;
}

// To prepare a machine, or to hash its memory, takes as long as it takes, and the source waits.
Step DestinationSession::take(MessageStream& control, const Message& message,
                              std::span<const std::byte> payload) {
    std::optional<KeepAlives> keep_alives;
    if (std::holds_alternative<Prepare>(message) || std::holds_alternative<BootImagePart>(message) ||
        std::holds_alternative<Resume>(message)) {
        keep_alives.emplace(control);
    }
    return destination_.on(message, payload);
}

std::optional<Result<void>> DestinationSession::take_pages(std::uint16_t number, const Incoming& incoming,
                                                           MessageStream& messages) {
    if (const auto* pages = std::get_if<Pages>(&incoming.message)) {
        PageReceiver* receiver = destination_.receiver(number);
        if (receiver == nullptr) {
            return vmm::fail(Code::protocol, "pages on stream {} are out of place", number);
        }
        auto placed = receiver->place(*pages, incoming.payload_bytes, messages);
        keep_source_waiting();
        return placed;
    }
    if (const auto* mark = std::get_if<RoundEnd>(&incoming.message)) {
        const auto done = destination_.round_end(number, *mark);
        if (!done) {
            return vmm::Failure{done.error()};
        }
        return *done ? control()->send(**done) : Result<void>{};
    }
    return std::nullopt;
}

// The source waits on control for the end of the round, however long the pages take.
void DestinationSession::keep_source_waiting() {
    const vmm::TimePoint now = vmm::real_clock().now();
    {
        const std::lock_guard lock{mutex_};
        if (now - last_keep_alive_ < std::chrono::seconds{1}) {
            return;
        }
        last_keep_alive_ = now;
    }
    (void)control()->send(KeepAlive{});  // a failure shows at the next receive
}

void DestinationSession::join(const Hello& hello, std::unique_ptr<Transport> transport) {
    auto stream = std::make_unique<Stream>(std::move(transport));
    const std::lock_guard lock{mutex_};
    joined_.resize(destination_.streams());
    HelloReply reply;
    if (!common_version(hello)) {
        reply = version_refusal();
    } else if (!equal_secrets(hello.secret, destination_.secret()) || over_ ||
               hello.stream >= joined_.size() || joined_[hello.stream] ||
               destination_.receiver(hello.stream) == nullptr) {
        reply = {HelloStatus::unknown_session, kProtocolVersion, "no session waits for this data connection"};
    }
    if (!stream->messages.send(reply) || reply.status != HelloStatus::ok) {
        return;
    }
    joined_[hello.stream] = true;
    auto thread = vmm::start_thread(
        fmt::format("pages{}", hello.stream), vmm::ThreadRole::pages,
        [this, number = hello.stream, messages = &stream->messages] { receive_pages(number, *messages); });
    if (!thread) {
        return;  // the connection ends with the stream, and the source says so
    }
    stream->thread = std::move(*thread);
    streams_.push_back(std::move(stream));
}

void DestinationSession::receive_pages(std::uint16_t number, MessageStream& messages) {
    vmm::use_cpu_for(vmm::CpuUse::bulk);
    // A stream may be idle for as long as the session lives: control carries the deadline, and shuts this
    // one.
    while (destination_.receiver(number) != nullptr) {
        Result<Incoming> incoming =
            messages.receive(limit_in(DestinationPhase::receiving), Deadline::never());
        Result<void> outcome;
        if (!incoming) {
            outcome = vmm::Failure{std::move(incoming).error()};
        } else if (auto taken = take_pages(number, *incoming, messages)) {
            outcome = std::move(*taken);
            if (std::holds_alternative<RoundEnd>(incoming->message)) {
                vmm::use_cpu_for(
                    vmm::CpuUse::service);  // round 0 was the bulk; in the last one the guest waits
            }
        } else {
            outcome = vmm::fail(Code::protocol, "{} does not belong on a data connection",
                                message_name(incoming->message));
        }
        if (!outcome) {
            stream_failed(std::move(outcome).error().context(fmt::format("stream {}", number)));
            return;
        }
        const std::lock_guard lock{mutex_};
        changed_.notify_all();
    }
}

Result<void> DestinationSession::wait_quiet() {
    std::unique_lock lock{mutex_};
    const bool done = changed_.wait_for(lock, Deadline{}.progress,
                                        [this] { return over_ || stream_error_ || destination_.quiet(); });
    if (stream_error_) {
        return vmm::Failure{*stream_error_};
    }
    if (!done || over_) {
        return vmm::fail(Code::timeout, "the last pages did not arrive on every stream");
    }
    return {};
}

void DestinationSession::stream_failed(vmm::Error why) {
    if (destination_.phase() == DestinationPhase::parked) {
        return;  // another stream broke first, and what this one still brings is out of place
    }
    if (!is_of_link(why) || destination_.keep() == vmm::Duration::zero()) {
        return give_up(why);
    }
    const std::lock_guard lock{mutex_};
    if (!stream_error_) {
        stream_error_ = std::move(why);
    }
    control_->shutdown();
    changed_.notify_all();
}

bool DestinationSession::interrupted(const vmm::Error& why) {
    vmm::Error error = why;
    {
        const std::lock_guard lock{mutex_};
        error = stream_error_.value_or(std::move(error));
    }
    if (is_of_link(error) && destination_.park()) {
        control()->shutdown();
        end_streams();
        if (wait_resumed()) {
            return true;
        }
        error = std::move(error).context("the source did not come back");
    }
    give_up(error);
    return false;
}

bool DestinationSession::wait_resumed() {
    const vmm::TimePoint end = vmm::real_clock().now() + destination_.keep();
    std::unique_lock lock{mutex_};
    const auto parked = [this] { return destination_.phase() == DestinationPhase::parked; };
    changed_.wait_until(lock, end, [&] { return next_control_ || !parked(); });
    if (!next_control_ || !parked()) {
        return false;
    }
    control_ = std::exchange(next_control_, nullptr);
    stream_error_.reset();
    joined_.clear();
    return true;
}

void DestinationSession::resume(const Hello& hello, std::unique_ptr<Transport> transport) {
    auto stream = std::make_shared<MessageStream>(std::move(transport));
    HelloReply reply;
    if (!common_version(hello)) {
        reply = version_refusal();
    } else if (!equal_secrets(hello.secret, destination_.secret()) || !destination_.resumable()) {
        reply = {HelloStatus::unknown_session, kProtocolVersion, "nothing is kept of this session"};
    }
    if (!stream->send(reply) || reply.status != HelloStatus::ok) {
        return;
    }
    const std::lock_guard lock{mutex_};
    if (over_ || !destination_.resumable()) {
        return;  // since: a connection that ends says so
    }
    next_control_ = std::move(stream);
    control_->shutdown();  // if nobody has noticed yet that it is of no use
    changed_.notify_all();
}

void DestinationSession::give_up(const vmm::Error& why) {
    // State first, words second: whoever is told `Failed` may resume the guest, so it must be true already.
    destination_.disconnected(why);
    const auto control = this->control();
    if (destination_.phase() == DestinationPhase::refused) {
        (void)control->send(Failed{why.text().substr(0, kMaxTextBytes)});
    }
    control->shutdown();
    const std::lock_guard lock{mutex_};
    over_ = true;
    changed_.notify_all();
}

void DestinationSession::close_streams() {
    {
        const std::lock_guard lock{mutex_};
        over_ = true;
    }
    end_streams();
}

void DestinationSession::end_streams() {
    std::vector<std::unique_ptr<Stream>> streams;
    {
        const std::lock_guard lock{mutex_};
        streams.swap(streams_);
    }
    for (const auto& stream : streams) {
        stream->messages.shutdown();
        stream->thread.join();
    }
}

QueryOutcome DestinationSession::query() {
    control()->shutdown();
    const QueryOutcome outcome = destination_.query();
    const std::lock_guard lock{mutex_};
    changed_.notify_all();
    return outcome;
}

}  // namespace migration
