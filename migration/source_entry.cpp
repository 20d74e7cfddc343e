// How a Source gets in: the phases before the destination has taken the guest on.
#include "migration/greeting.hpp"
#include "migration/source.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

Result<void> Source::connect() {
    enter(SourcePhase::connect);
    const MessageStream& control = adopt(TRY(services_.connector.connect(deadline())));
    if (control.security().exposed) {
        services_.events.on({services_.clock.now(), Warned{exposed_link(control)}});
    }
    return check();
}

Result<void> Source::negotiate() {
    enter(SourcePhase::negotiate);
    services_.events.on({services_.clock.now(),
                         SessionOpened{session_name_, services_.connector.address(), options_.streams}});
    std::uint16_t place = HelloReply::kMaxPlace + 1;
    // Places only fall. A peer that says otherwise is not heard, so that it cannot fill our memory with
    // events.
    const auto on_queued = [&](const HelloReply& reply) -> Result<void> {
        if (reply.place < place) {
            place = reply.place;
            services_.events.on({services_.clock.now(), Queued{place, reply.text}});
        }
        return check();
    };
    TRY(greet(*streams_[0], make_hello(Purpose::control, session_, secret_), deadline(), on_queued));
    if (auto tls = streams_[0]->security().tls) {
        services_.events.on({services_.clock.now(), Secured{std::move(*tls)}});
    }
    return {};
}

Result<void> Source::preflight() {
    enter(SourcePhase::preflight);
    manifest_ = TRY(complete_manifest(services_.vm, services_.vm.boot_image().size()));
    const Examined examined = TRY(examine_at(*streams_[0], manifest_, services_.clock, deadline()));
    costs_.stop = services_.vm.stop_time();
    costs_.round_trip = examined.round_trip;
    clock_difference_ = examined.clock_difference;
    for (const Reason& warning : examined.reply.warnings) {
        services_.events.on({services_.clock.now(), Warned{warning}});
    }
    if (!examined.reply.reasons.empty()) {
        refusals_ = examined.reply.reasons;
        return fail(Code::refused, "the destination refuses this guest");
    }
    return {};
}

}  // namespace migration
