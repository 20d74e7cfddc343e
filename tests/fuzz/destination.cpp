// A source that means the worst: streams of bytes into the session of a destination. Oracle: it ends in a
// terminal state, with a record that says so; no guest starts but by a Commit of the right epoch, with the
// memory that the source's digest vouches for, and none that was refused to a Query.
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

// What the streams say, read on its own. repair() makes right what only an honest source could: the hash of
// the boot image and the digest of the pages.
struct Story {
    std::optional<Hello> hello;
    std::optional<Manifest> manifest;
    std::optional<Finish> finish;
    bool commits = false;
    vmm::Bytes boot_image;
    std::map<std::uint64_t, Digest> pages;

    // Control comes last, the first time for the boot image.
    void read(std::span<std::byte> stream, bool repair) {
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
            } else if (auto* end = std::get_if<Finish>(&*message); end != nullptr && !finish) {
                if (repair) {
                    end->digest = digest();
                    replace(frame, *end);
                }
                finish = *end;
            } else if (const auto* commit = std::get_if<Commit>(&*message)) {
                commits = commits || (manifest && commit->epoch == manifest->epoch + 1);
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
    vmm::Bytes control;
    std::array<vmm::Bytes, kMaxData> data;
    Story story;

    Streams(fuzz::Input& input, bool repair) {
        std::array<std::uint32_t, kMaxData> sizes{};
        for (std::uint32_t& size : sizes) {
            size = input.take<std::uint32_t>();
        }
        for (std::size_t i = 0; i < kMaxData; ++i) {
            const auto some = input.take_bytes(sizes[i]);
            data[i].assign(some.begin(), some.end());
        }
        control.assign(input.rest().begin(), input.rest().end());
        Story first;
        first.read(control, false);
        story.hello = first.hello;
        story.boot_image = std::move(first.boot_image);
        for (vmm::Bytes& stream : data) {
            story.read(stream, false);
        }
        story.read(control, repair);
    }
};

// Whether the guest may run.
void judge(const Destination& destination, Vm& vm, const tests::MemoryRecords& records, const Story& story,
           bool refused) {
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
    VERIFY(!refused && story.commits);
    VERIFY(history.size() >= 3 && history[0] == RecordStatus::ready && history[1] == RecordStatus::started &&
           history[2] == RecordStatus::running);
    VERIFY(story.finish && digest_of(vm.memory(), destination.secret()) == story.finish->digest);
}

}  // namespace

// A byte of flags, one for the phase in which somebody asks with Query, the lengths of the data streams,
// these, and then control, which begins with a Hello.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    fuzz::Input input{bytes, size};
    const auto flags = input.take<std::uint8_t>();
    const auto query_in = input.take<std::uint8_t>();
    const Streams streams{input, (flags & 1) == 0};

    auto control = std::make_unique<ScriptTransport>(streams.control);
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
    tests::MemoryRecords records;
    tests::EventLog events;
    DestinationSession* session = nullptr;
    bool refused = false;
    events.on_destination = [&](DestinationPhase phase) {
        if (session != nullptr && phase == DestinationPhase::receiving) {
            for (std::uint16_t i = 0; i < session->destination().streams(); ++i) {
                Hello data = *hello;
                data.purpose = Purpose::data;
                data.stream = i;
                // One that says nothing, where the source announced more than it brings.
                session->join(data, std::make_unique<ScriptTransport>(
                                        i < kMaxData ? streams.data[i] : std::span<const std::byte>{}));
            }
        }
        if (session != nullptr && query_in != 0 && static_cast<std::uint8_t>(phase) == query_in % 8) {
            const QueryOutcome outcome = session->query();
            refused = refused || outcome == QueryOutcome::refused;
        }
    };
    DestinationSession served{*hello, first_words.release(), {vm, records, vmm::real_clock(), events, {}}};
    session = &served;
    const bool owned = served.run();
    VERIFY(owned == (served.destination().phase() == DestinationPhase::started));
    judge(served.destination(), vm, records, streams.story, refused);
    return 0;
}
