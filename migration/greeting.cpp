#include "migration/greeting.hpp"

#include <algorithm>

#include "vmm/guest/population.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;
using vmm::TimePoint;

Hello make_hello(Purpose purpose, const SessionId& session, const Secret& secret, std::uint16_t stream) {
    return {{kProtocolVersion}, purpose, session, secret, stream};
}

Result<void> greet(MessageStream& stream, const Hello& hello, const Deadline& deadline,
                   const OnQueued& on_queued) {
    TRY(stream.introduce(hello, deadline));
    TRY(stream.send(hello, deadline));
    HelloReply reply = TRY(stream.expect<HelloReply>(deadline));
    while (reply.status == HelloStatus::queued && on_queued) {
        TRY(on_queued(reply));
        reply = TRY(stream.expect<HelloReply>(deadline));
    }
    switch (reply.status) {
        case HelloStatus::ok:
            if (reply.version != kProtocolVersion) {
                return fail(Code::version, "{} chose protocol version {}, which was not offered",
                            stream.peer(), reply.version);
            }
            return {};
        case HelloStatus::busy:
            return fail(Code::refused, "{} is busy: {}", stream.peer(), reply.text);
        case HelloStatus::version:
            return fail(Code::version, "{}: {}", stream.peer(), reply.text);
        case HelloStatus::unknown_session:
            return fail(Code::refused, "{}: {}", stream.peer(), reply.text);
        case HelloStatus::queued:
            break;
    }
    return fail(Code::protocol, "{} gave no answer to Hello", stream.peer());
}

Reason exposed_link(const MessageStream& stream) {
    return {"insecure",
            "the guest's memory travels in the clear, and could be read and changed on the way (--insecure)",
            stream.peer(), "give --tls-dir on both hosts"};
}

Result<Examined> examine_at(MessageStream& control, Manifest& manifest, const vmm::Clock& clock,
                            const Deadline& deadline) {
    const TimePoint sent = clock.now();
    const std::int64_t realtime = clock.realtime_ns();
    manifest.realtime_ns = static_cast<std::uint64_t>(realtime);
    TRY(control.send(manifest, deadline));
    Examined examined;
    examined.reply = TRY(control.expect<PreflightReply>(deadline));
    const vmm::Duration waited = clock.now() - sent;
    // The peer's word, so cut to what can be true.
    const vmm::Duration spent{static_cast<std::int64_t>(
        std::min<std::uint64_t>(examined.reply.spent_ns, static_cast<std::uint64_t>(waited.count())))};
    examined.round_trip = waited - spent;
    // Subtracted as unsigned and cut to a century: the peer's clock may be any 64 bits.
    constexpr std::int64_t century = std::int64_t{100} * 365 * 24 * 3600 * 1'000'000'000;
    const std::int64_t ahead = std::clamp(
        static_cast<std::int64_t>(examined.reply.realtime_ns - manifest.realtime_ns), -century, century);
    examined.clock_difference = vmm::Duration{ahead} - spent - examined.round_trip / 2;
    if (auto warning = clock_warning(examined.clock_difference)) {
        examined.reply.warnings.push_back(std::move(*warning));
    }
    return examined;
}

Result<Manifest> complete_manifest(SourceVm& vm, std::size_t boot_image_bytes) {
    Manifest manifest = TRY(vm.manifest());
    const vmm::Bitmap populated = TRY(vmm::populated_pages(vm.memory()));
    manifest.used_pages = populated.count();
    manifest.boot_image_bytes = boot_image_bytes;
    return manifest;
}

}  // namespace migration
