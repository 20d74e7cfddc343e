// Destination: the state machine of the side that receives. It decides and answers; it does no network I/O,
// so that the whole table (state x message) is a unit test. PROTOCOL.md section 5 is its specification.
#pragma once

#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "migration/event.hpp"
#include "migration/page_receiver.hpp"
#include "migration/ports.hpp"
#include "migration/record.hpp"

namespace migration {

// What the driver does after a message was handled.
struct Step {
    std::vector<Message> replies;
    bool close = false;  // the session is over once the replies are sent
};

struct DestinationServices {
    DestinationVm& vm;
    RecordStore& records;
    const vmm::Clock& clock;
    EventSink& events;
    Uuid boot_id{};
};

class Destination {
  public:
    // What a source may ask to be waited for: while it lasts a place and memory are taken.
    static constexpr vmm::Duration kMaxKeep = std::chrono::minutes{10};

    // A control connection said `hello`, from `peer`.
    Destination(const Hello& hello, std::string peer, DestinationServices services);

    // Any message but those that carry pages. `payload` is that of a BootImagePart. Never fails: what must
    // not be is answered with Failed and ends the session. Called by the thread of the control connection.
    Step on(const Message& message, std::span<const std::byte> payload = {});

    // A stream's receiver, from Prepared, or Resume, to its last RoundEnd; nothing outside of that. Used by
    // one thread, which has ended before Resume is handed over; valid until then.
    PageReceiver* receiver(std::uint16_t stream);
    // The end mark of a stream, by the thread of that stream. The answer, when it was the last of its round
    // that was missing and another round follows. An error ends the session.
    vmm::Result<std::optional<RoundDone>> round_end(std::uint16_t stream, const RoundEnd& mark);
    // Whether every stream has sent its last end mark.
    bool quiet() const;

    // The connection ended, or a wait passed its deadline: nothing more will come on it.
    void disconnected(const vmm::Error& why);
    // The connection broke. True: what has arrived is kept, for as long as keep() says; the session may be
    // resumed.
    bool park();
    // How long that is; zero before Prepare, or when the source does not want it.
    vmm::Duration keep() const;
    // Whether Resume may lead on from here, once the connection is given up.
    bool resumable() const;
    // Somebody with the secret asks what became of the session. The control connection was shut before.
    QueryOutcome query();

    DestinationPhase phase() const;
    // Data connections to expect; from Prepared on.
    std::uint16_t streams() const;
    const Secret& secret() const { return secret_; }
    const SessionId& session() const { return session_; }
    // The source has said that it knows that the guest runs here.
    bool acknowledged() const;
    // Why the session ended without a guest; empty otherwise.
    std::string failure() const;

  private:
    // Each state owns what is legal in it.
    struct Greeted {};
    struct Configured {
        Manifest manifest;
        std::optional<Prepare> prepare;
        vmm::Bytes boot_image;
        std::uint32_t probes = 0;
    };
    struct Receiving {
        Manifest manifest;
        std::unique_ptr<RecordHandle> record;
        std::vector<bool> quiet;
        std::vector<std::uint32_t> rounds;  // complete, by stream
    };
    struct Verified {
        Manifest manifest;
        std::unique_ptr<RecordHandle> record;
        Digest digest;
        vmm::Duration verify;
    };
    struct Loaded {
        Manifest manifest;
        std::unique_ptr<RecordHandle> record;
    };
    struct Started {
        std::unique_ptr<RecordHandle> record;
    };
    struct Refused {
        std::unique_ptr<RecordHandle> record;
    };
    struct Broken {
        std::unique_ptr<RecordHandle> record;
    };
    // It cannot start: only Resume leads on from here.
    struct Parked {
        Manifest manifest;
        std::unique_ptr<RecordHandle> record;
    };
    using State =
        std::variant<Greeted, Configured, Receiving, Verified, Loaded, Started, Refused, Broken, Parked>;

    Step handle(Greeted&, const Manifest& manifest);
    Step handle(Configured& state, const Probe& probe);
    Step handle(Configured& state, const Prepare& prepare);
    Step handle(Configured& state, const BootImagePart& part, std::span<const std::byte> payload);
    Step handle(Receiving& state, const Finish& finish);
    Step handle(Verified& state, const MachineState& message);
    Step handle(Loaded& state, const Commit& commit);
    Step handle(Parked& state, const Resume& resume);

    Step prepare_machine(Configured& state);
    Step mismatch(const Digest& ours);
    // The whole table, in as many messages as it takes; what is zero is left out.
    std::vector<Message> inventories() const;
    Digest entry_in_memory(std::uint64_t page) const;
    vmm::Result<Digest> rehash() const;
    void begin_receiving(Manifest manifest, std::unique_ptr<RecordHandle> record, std::uint32_t round);
    Digest digest_of_streams() const;

    // Terminal states. fail(): we cannot go on; says so. The record becomes `refused`, so that no late Commit
    // counts.
    Step fail(std::string text);
    void refuse(std::string why);
    std::unique_ptr<RecordHandle> take_record();
    void enter(DestinationPhase phase, State state);
    // Tells the sink what was entered since, without the lock: a sink may hold this thread, and Query must
    // not wait.
    void announce();

    const SessionId session_;
    const Secret secret_;
    const std::string peer_;
    const Purpose purpose_;
    DestinationServices services_;

    mutable std::mutex mutex_;
    State state_ = Greeted{};
    std::string failure_;
    bool acknowledged_ = false;
    std::vector<DestinationPhase> entered_;
    std::uint16_t streams_ = 0;
    std::unique_ptr<PageTable> table_;  // once, in Prepare
    std::vector<std::unique_ptr<PageReceiver>>
        receivers_;         // in Prepare, and anew when the session is resumed
    Digest digest_before_;  // of the table, when these were made
    bool verify_full_ = false;
    vmm::Duration keep_{};
};

}  // namespace migration
