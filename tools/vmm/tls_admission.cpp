#include "tools/vmm/tls_admission.hpp"

#include "tools/vmm/log.hpp"
#include "vmm/base/thread.hpp"

namespace tools {

using migration::Hello;
using migration::MessageStream;
using migration::TlsTransport;
using vmm::Result;

TlsAdmission::TlsAdmission(const migration::TlsContext& context, std::optional<migration::TlsPeer> identity,
                           const migration::SessionId& session, Admit admit, vmm::Duration limit)
    : context_(context),
      identity_(std::move(identity)),
      session_(session),
      admit_(std::move(admit)),
      limit_(limit) {
}

TlsAdmission::~TlsAdmission() {
    while (!pending_.empty()) {
        end_oldest();
    }
}

void TlsAdmission::take(vmm::UniqueFd socket, std::string peer) {
    forget_done();
    if (pending_.size() == kMaxPending) {
        end_oldest();
    }
    const auto begin = [&]() -> Result<void> {
        auto connected = TRY(migration::ConnectedSocket::adopt(std::move(socket), std::move(peer)));
        auto transport = TRY(TlsTransport::server(std::move(connected), context_, identity_));
        TlsTransport& tls = *transport;
        const auto stream = std::make_shared<MessageStream>(std::move(transport));
        Pending& pending = pending_.emplace_back();
        // Before its thread runs: it can be shut from the first moment.
        pending.stream = stream.get();
        auto thread = vmm::start_thread("handshake", vmm::ThreadRole::migration,
                                        [this, &pending, &tls, stream] { serve(pending, tls, *stream); });
        if (!thread) {
            pending_.pop_back();
            return vmm::Failure{std::move(thread).error()};
        }
        pending.thread = std::move(*thread);
        return {};
    }();
    if (!begin) {
        log_line("a data connection is dropped: {}", begin.error().text());
    }
}

void TlsAdmission::serve(Pending& pending, TlsTransport& transport, MessageStream& stream) {
    const Result<Hello> hello = hear(transport, stream);
    {
        const std::lock_guard lock{mutex_};
        pending.stream = nullptr;
    }
    if (hello) {
        admit_(*hello, stream.release());
    } else {
        log_line("turned away: {}", hello.error().text());
    }
    const std::lock_guard lock{mutex_};
    pending.done = true;
}

Result<Hello> TlsAdmission::hear(TlsTransport& transport, MessageStream& stream) const {
    const auto deadline = migration::Deadline::until(vmm::real_clock().now() + limit_);
    TRY(transport.handshake(deadline));
    Hello hello = TRY(stream.expect<Hello>(deadline));
    const bool joins =
        hello.purpose == migration::Purpose::data || hello.purpose == migration::Purpose::resume;
    if (!joins || hello.session != session_) {
        return vmm::fail(vmm::Code::protocol, "{} is not for this session", stream.peer());
    }
    return hello;
}

void TlsAdmission::end_oldest() {
    {
        const std::lock_guard lock{mutex_};
        if (pending_.front().stream != nullptr) {
            pending_.front().stream->shutdown();
        }
    }
    pending_.front().thread.join();
    pending_.pop_front();
}

void TlsAdmission::forget_done() {
    for (auto entry = pending_.begin(); entry != pending_.end();) {
        const bool done = [&] {
            const std::lock_guard lock{mutex_};
            return entry->done;
        }();
        if (done) {
            entry->thread.join();
            entry = pending_.erase(entry);
        } else {
            ++entry;
        }
    }
}

}  // namespace tools
