// A source that means the worst: streams of bytes into the session of a destination, which break and, where
// the session is kept, come again. Oracle: it ends in a terminal state, with a record that says so; no guest
// starts but by a Commit of the right epoch on the connection whose digest vouches for its memory, and none
// that was refused to a Query; and nobody resumes a session without its secret.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <map>

#include "migration/destination_session.hpp"
#include "migration/preflight.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/support/receiver.hpp"
#include "tests/support/script_transport.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/encode.hpp"

namespace {

using namespace migration;
using tests::ScriptTransport;

constexpr std::uint64_t kMaxRam = 1 << 20;
constexpr std::size_t kMaxData = 2;  // data connections

// Takes what preflight accepts on a host without features, up to kMaxRam.
class Vm final : public tests::ScriptedDestination {
  public:
    PreflightReply examine(const Manifest& manifest) override {
        Offer offer;
        offer.host.capabilities.max_vcpus = 4;
        offer.host.capabilities.tsc_scaling = true;
        offer.max_memory_bytes = kMaxRam;
        offer.available_memory_bytes = offer.total_memory_bytes = kMaxRam;
        return migration::examine(manifest, offer);
    }
};

// The streams of a control connection and of the data connections beside it.
struct Attempt {
    vmm::Bytes control;
    std::array<vmm::Bytes, kMaxData> data;
    std::optional<Finish> finish;  // the first
    bool commits = false;          // with the right epoch
};

// What the streams say, read on its own. Repairing makes right what only an honest source could: the hash of
// the boot image and the digest of the pages.
struct Story {
    std::optional<Hello> hello;
    std::optional<Manifest> manifest;
    vmm::Bytes boot_image;
    std::map<std::uint64_t, Digest> pages;

    // Control comes last, the first time for the boot image.
    void read(Attempt& attempt, std::span<std::byte> stream, bool repair) {
        fuzz::for_each_frame(stream, [&](const fuzz::Frame& frame) {
            const auto header =
                decode_header(std::span<const std::byte>{frame.header}.first<kFrameHeaderBytes>(), SIZE_MAX);
            auto message = header ? decode_body(*header, frame.body)
                                  : vmm::Result<Message>{vmm::Failure{header.error()}};
            if (!message) {
                return;
            }
            if (auto* first = std::get_if<Hello>(&*message); first != nullptr && !hello) {
                hello = *first;
            } else if (auto* shown = std::get_if<Manifest>(&*message); shown != nullptr && !manifest) {
                manifest = *shown;
            } else if (std::holds_alternative<BootImagePart>(*message)) {
                boot_image.insert(boot_image.end(), frame.payload.begin(), frame.payload.end());
            } else if (const auto* sent = std::get_if<Pages>(&*message)) {
                place(*sent, frame.payload);
            } else if (auto* prepare = std::get_if<Prepare>(&*message); prepare != nullptr && repair) {
                prepare->boot_image_hash = XXH3_64bits(boot_image.data(), boot_image.size());
                replace(frame, *prepare);
            } else if (auto* end = std::get_if<Finish>(&*message); end != nullptr && !attempt.finish) {
                if (repair) {
                    end->digest = digest();
                    replace(frame, *end);
                }
                attempt.finish = *end;
            } else if (const auto* commit = std::get_if<Commit>(&*message)) {
                attempt.commits = attempt.commits || (manifest && commit->epoch == manifest->epoch + 1);
            }
        });
    }

    template <typename T>
    static void replace(const fuzz::Frame& frame, const T& message) {
        const vmm::Bytes body = vmm::encode(message);
        VERIFY(body.size() == frame.body.size());
        std::copy(body.begin(), body.end(), frame.body.begin());
        fuzz::repair(frame);
    }

    void place(const Pages& sent, std::span<const std::byte> payload) {
        if (!hello) {
            return;
        }
        const PageHasher hasher{hello->secret};
        for (const Extent& extent : sent.extents) {
            for (std::uint64_t i = 0; i < std::min<std::uint64_t>(extent.count, kMaxRam / vmm::kPageSize);
                 ++i) {
                Digest entry;
                if (extent.kind == ExtentKind::data) {
                    if (payload.size() < vmm::kPageSize) {
                        return;
                    }
                    entry = hasher.entry_for(payload.first(vmm::kPageSize));
                    payload = payload.subspan(vmm::kPageSize);
                }
                pages[extent.first + i] = entry;
            }
        }
    }

    Digest digest() const {
        Digest sum;
        for (const auto& [page, entry] : pages) {
            if (!(entry == Digest{})) {
                sum = add(sum, PageHasher{hello->secret}.contribution(page, entry));
            }
        }
        return sum;
    }
};

Digest digest_of(const vmm::GuestMemory& memory, const Secret& secret) {
    const PageHasher hasher{secret};
    Digest sum;
    for (std::uint64_t page = 0; page < memory.page_limit(); ++page) {
        if (const Digest entry = hasher.entry_for(*memory.pages({page, 1})); !(entry == Digest{})) {
            sum = add(sum, hasher.contribution(page, entry));
        }
    }
    return sum;
}

// The streams of one input, repaired.
struct Streams {
    std::vector<Attempt> attempts;

    Streams(fuzz::Input& input, bool repair, bool breaks) {
        attempts.resize(breaks ? 2 : 1);
        for (Attempt& attempt : attempts) {
            take(input, attempt, &attempt == &attempts.back());
        }
        Attempt ignored;
        Story first;
        first.read(ignored, attempts.front().control, false);
        Story story;
        story.hello = first.hello;
        story.boot_image = std::move(first.boot_image);
        for (Attempt& attempt : attempts) {
            for (vmm::Bytes& stream : attempt.data) {
                story.read(attempt, stream, false);
            }
            story.read(attempt, attempt.control, repair);
        }
    }

    static void take(fuzz::Input& input, Attempt& attempt, bool last) {
        std::array<std::uint32_t, kMaxData> sizes{};
        for (std::uint32_t& size : sizes) {
            size = input.take<std::uint32_t>();
        }
        const std::size_t control_size = last ? SIZE_MAX : input.take<std::uint32_t>();
        for (std::size_t i = 0; i < kMaxData; ++i) {
            const auto some = input.take_bytes(sizes[i]);
            attempt.data[i].assign(some.begin(), some.end());
        }
        const auto some = input.take_bytes(control_size);
        attempt.control.assign(some.begin(), some.end());
    }
};

// Whether the guest may run; `attempt` is the last that was served.
void judge(const Destination& destination, Vm& vm, const tests::MemoryRecords& records,
           const Attempt& attempt, bool refused) {
    const DestinationPhase phase = destination.phase();
    const auto history = records.history(Role::destination);
    const bool started = phase == DestinationPhase::started;
    VERIFY(started || phase == DestinationPhase::refused || phase == DestinationPhase::failed);
    VERIFY(started == (vm.running || vm.placed));
    if (!started) {
        VERIFY(history.empty() || history.back() == RecordStatus::refused ||
               history.back() == RecordStatus::failed);
        return;
    }
    VERIFY(!refused && attempt.commits);
    VERIFY(history.size() >= 3 && history[0] == RecordStatus::ready && history[1] == RecordStatus::started &&
           history[2] == RecordStatus::running);
    VERIFY(attempt.finish && digest_of(vm.memory(), destination.secret()) == attempt.finish->digest);
}

// The last connection of a session: when it has nothing more to say the test hears of it.
class LastConnection final : public Transport {
  public:
    LastConnection(std::span<const std::byte> script, std::function<void()> at_end)
        : script_(script), at_end_(std::move(at_end)) {}

    vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) override {
        return script_.send(parts, deadline);
    }
    vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override {
        auto received = script_.receive(parts, deadline);
        if (!received) {
            at_end_();
        }
        return received;
    }
    void shutdown() override { script_.shutdown(); }
    void abort() override { script_.abort(); }
    std::string peer() const override { return script_.peer(); }

  private:
    ScriptTransport script_;
    const std::function<void()> at_end_;
};

// One session and whoever connects to it, at the phases that the input names.
class Play {
  public:
    Play(const Streams& streams, const Hello& hello) : streams_(streams), hello_(hello) {}

    std::optional<std::uint8_t> query_in;
    std::optional<std::uint8_t> resume_in;  // a source that gives its connection up; else once it is broken
    bool stranger = false;                  // comes first, without the secret

    void begin(DestinationSession& session) { session_ = &session; }
    // On the thread that enters the phase.
    void on(DestinationPhase phase) {
        if (session_ == nullptr) {
            return;
        }
        if (phase == DestinationPhase::receiving) {
            join();
        }
        const auto number = static_cast<std::uint8_t>(phase);
        if (query_in == number) {
            query();
        }
        if (phase == DestinationPhase::parked || resume_in == number) {
            resume();
        }
        if (session_->destination().phase() == DestinationPhase::parked && !resuming_) {
            query();  // nobody comes: what is kept would be kept for minutes
        }
    }
    bool refused() const { return refused_; }
    const Attempt& attempt() const { return streams_.attempts[attempt_]; }

  private:
    void join() {
        resuming_ = false;
        for (std::uint16_t i = 0; i < session_->destination().streams(); ++i) {
            Hello data = hello_;
            data.purpose = Purpose::data;
            data.stream = i;
            // One that says nothing, where the source announced more than it brings.
            session_->join(data, std::make_unique<ScriptTransport>(
                                     i < kMaxData ? attempt().data[i] : std::span<const std::byte>{}));
        }
    }
    void query() {
        const QueryOutcome outcome = session_->query();
        refused_ = refused_ || outcome == QueryOutcome::refused;
    }
    void resume() {
        Hello resume = hello_;
        resume.purpose = Purpose::resume;
        if (stranger && session_->destination().phase() == DestinationPhase::parked) {
            resume.secret[0] ^= 1;
            session_->resume(resume, std::make_unique<ScriptTransport>(streams_.attempts.back().control));
            resume.secret[0] ^= 1;
        }
        if (attempt_ + 1 == streams_.attempts.size() || !session_->destination().resumable()) {
            return;
        }
        ++attempt_;
        resuming_ = true;
        session_->resume(resume, std::make_unique<LastConnection>(attempt().control, [this] {
                             // It ended without Resume: a session that is parked still enters no phase that
                             // would tell.
                             if (session_->destination().phase() == DestinationPhase::parked) {
                                 query();
                             }
                         }));
    }

    const Streams& streams_;
    const Hello& hello_;
    DestinationSession* session_ = nullptr;
    std::size_t attempt_ = 0;
    bool resuming_ = false;
    bool refused_ = false;
};

}  // namespace

// A byte of flags; one for the phase in which somebody asks with Query; where the connections break and come
// again, one for the phase in which they do, beside the end of what they say. Then, for each time: the
// lengths of the data streams and, but the last time, of control; these; and then control, which begins with
// a Hello the first time.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    constexpr std::uint8_t kPhases = 9;
    fuzz::Input input{bytes, size};
    const auto flags = input.take<std::uint8_t>();
    const auto query_in = input.take<std::uint8_t>();
    const bool breaks = (flags & 8) != 0;
    const std::uint8_t resume_in = breaks ? input.take<std::uint8_t>() : std::uint8_t{0};
    const Streams streams{input, (flags & 1) == 0, breaks};

    auto control = std::make_unique<ScriptTransport>(streams.attempts.front().control);
    MessageStream first_words{std::move(control)};
    const auto incoming = first_words.receive(4096);
    const Hello* hello = incoming ? std::get_if<Hello>(&incoming->message) : nullptr;
    if (hello == nullptr) {
        return 0;
    }
    Vm vm;
    if ((flags & 2) != 0) {
        vm.restore_error = vmm::Error{vmm::Code::kvm, "restore"};
    }
    if ((flags & 4) != 0) {
        vm.start_error = vmm::Error{vmm::Code::kvm, "start"};
    }
    Play play{streams, *hello};
    if (query_in != 0) {
        play.query_in = static_cast<std::uint8_t>(query_in % kPhases);
    }
    if (resume_in != 0) {
        play.resume_in = static_cast<std::uint8_t>(resume_in % kPhases);
    }
    play.stranger = (flags & 16) != 0;
    tests::MemoryRecords records;
    tests::EventLog events;
    events.on_destination = [&](DestinationPhase phase) { play.on(phase); };
    DestinationSession session{*hello, first_words.release(), {vm, records, vmm::real_clock(), events, {}}};
    play.begin(session);
    const bool owned = session.run();
    VERIFY(owned == (session.destination().phase() == DestinationPhase::started));
    judge(session.destination(), vm, records, play.attempt(), play.refused());
    return 0;
}
