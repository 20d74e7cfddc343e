// The first words on every connection, as the source says them.
#pragma once

#include <functional>

#include "migration/message_stream.hpp"
#include "migration/ports.hpp"
#include "migration/preflight.hpp"

namespace migration {

Hello make_hello(Purpose purpose, const SessionId& session, const Secret& secret, std::uint16_t stream = 0);

// Gets each word from a queue; an error ends the waiting.
using OnQueued = std::function<vmm::Result<void>(const HelloReply&)>;

// Sends Hello and takes the answer; anything but `ok` is an error with the destination's words. Without
// `on_queued` a place in a queue is one too.
vmm::Result<void> greet(MessageStream& stream, const Hello& hello, const Deadline& deadline,
                        const OnQueued& on_queued = {});

// What the user should know of a connection that anybody can read and change on its way.
Reason exposed_link(const MessageStream& stream);

struct Examined {
    PreflightReply reply;
    vmm::Duration round_trip{};
    vmm::Duration clock_difference{};  // destination minus source, to half a round trip
};
// Shows the manifest. The clock warning, if there is one, is among the reply's warnings.
vmm::Result<Examined> examine_at(MessageStream& control, Manifest& manifest, const vmm::Clock& clock,
                                 const Deadline& deadline);

// What manifest() of a SourceVm leaves to the engine: used pages and the size of the boot image.
vmm::Result<Manifest> complete_manifest(SourceVm& vm, std::size_t boot_image_bytes);

}  // namespace migration
