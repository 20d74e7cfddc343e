// TlsAdmission: data connections of a session that have yet to prove who they are. Each does so on a thread
// of its own, so that one that is slow, or means harm, keeps nobody waiting.
#pragma once

#include <list>
#include <mutex>
#include <thread>

#include "migration/message_stream.hpp"
#include "migration/transport_tls.hpp"

namespace tools {

class TlsAdmission {
  public:
    static constexpr std::size_t kMaxPending = 16;
    static constexpr vmm::Duration kLimit = std::chrono::seconds{5};

    // Gets who has a certificate and belongs to the session by its own word: the secret is still to be
    // compared. On the thread of the connection.
    using Admit = std::function<void(const migration::Hello&, std::unique_ptr<migration::Transport>)>;

    // The context must outlive it. `limit`: for handshake and Hello together.
    TlsAdmission(const migration::TlsContext& context, std::optional<migration::TlsPeer> identity,
                 const migration::SessionId& session, Admit admit, vmm::Duration limit = kLimit);
    // Ends those that are not admitted yet.
    ~TlsAdmission();
    TlsAdmission(const TlsAdmission&) = delete;
    TlsAdmission& operator=(const TlsAdmission&) = delete;

    // One thread. Of too many the oldest goes: who means it proves it at once.
    void take(vmm::UniqueFd socket, std::string peer);

  private:
    struct Pending {
        migration::MessageStream* stream = nullptr;  // while it can be shut; under mutex_
        bool done = false;                           // under mutex_
        std::thread thread;
    };

    void serve(Pending& pending, migration::TlsTransport& transport, migration::MessageStream& stream);
    vmm::Result<migration::Hello> hear(migration::TlsTransport& transport,
                                       migration::MessageStream& stream) const;
    void end_oldest();
    void forget_done();

    const migration::TlsContext& context_;
    const std::optional<migration::TlsPeer> identity_;
    const migration::SessionId session_;
    const Admit admit_;
    const vmm::Duration limit_;
    std::mutex mutex_;
    std::list<Pending> pending_;  // oldest first; the list is take()'s thread's
};

}  // namespace tools
