// A source whose connection broke before Commit: it comes back to what the destination has kept.
#include <algorithm>

#include "migration/greeting.hpp"
#include "migration/source.hpp"

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;
using vmm::TimePoint;

namespace {

constexpr vmm::Duration kTryEvery = std::chrono::milliseconds{250};
// A connection that comes up in the middle of a try is seen by the next one only.
constexpr vmm::Duration kTryLimit = std::chrono::seconds{3};
// The guest is not paused again and again for a link, or a peer, that breaks each time.
constexpr int kMaxBrokenPauses = 3;

}  // namespace

bool Source::may_retry(vmm::Error& why) {
    const auto broken = [](const auto& stream) { return stream->broken(); };
    if (!options_.retry || !copier_ || not_resumed_ || !is_of_link(why) || !check() ||
        std::none_of(streams_.begin(), streams_.end(), broken)) {
        return false;
    }
    if (paused_ && ++broken_pauses_ > kMaxBrokenPauses) {
        return false;
    }
    pause_ends_.reset();
    resume_here();
    why = last_word(std::move(why));
    return !not_resumed_ && is_of_link(why);
}

Result<void> Source::retry(const vmm::Error& why) {
    const TimePoint broken = services_.clock.now();
    services_.events.on({broken, Interrupted{reason_for(why), *options_.retry}});
    enter(SourcePhase::copy);
    retire_streams();
    for (;;) {
        auto back = come_back(broken);
        if (back) {
            return from_copy();
        }
        TRY(check());
        if (!is_of_link(back.error())) {
            return vmm::Failure{
                std::move(back).error().context("the connection broke, and to come back failed")};
        }
        if (services_.clock.now() - broken >= *options_.retry) {
            // Another code than that of a broken connection: this was the last try.
            return fail(Code::limit,
                        "the connection broke, and did not come back within the {:.0f} ms of --retry: {}",
                        vmm::to_ms(*options_.retry), back.error().text());
        }
        retire_streams();
        std::unique_lock lock{mutex_};
        changed_.wait_for(lock, kTryEvery, [this] { return gate_ != Gate::open; });
    }
}

void Source::retire_streams() {
    const std::lock_guard lock{mutex_};
    for (const auto& stream : streams_) {
        stream->shutdown();
        retired_bytes_ += stream->bytes_sent();
    }
    streams_.clear();
}

Result<void> Source::come_back(TimePoint broken) {
    Deadline deadline = this->deadline();
    deadline.at = std::min({deadline.at.value_or(TimePoint::max()), broken + *options_.retry,
                            services_.clock.now() + kTryLimit});
    MessageStream& control = adopt(TRY(services_.connector.connect(deadline)));
    TRY(check());
    TRY(greet(control, make_hello(Purpose::resume, session_, secret_), deadline));
    TRY(control.send(Resume{copier_->next_round()}, deadline));
    // From here on the destination works, and only its silence counts.
    const PageTable held = TRY(read_held(this->deadline()));
    if (auto opened = open_streams(); !opened) {
        // Refused as unknown: the connection broke once more, and the session is parked again.
        return fail(Code::closed, "{}", opened.error().text());
    }
    // What was learned of the old link, and flushed before it broke, says nothing now.
    rounds_.clear();
    storage_flushed_ = digest_verified_ = false;
    const std::uint64_t kept = TRY(copier_->resume(carriers(), held));
    const TimePoint now = services_.clock.now();
    services_.events.on({now, Resumed{now - broken, kept, copier_->owed_pages()}});
    return {};
}

Result<PageTable> Source::read_held(const Deadline& deadline) {
    const Message answer = TRY(next_answer(deadline));
    const auto* head = std::get_if<Held>(&answer);
    if (head == nullptr) {
        return MessageStream::unexpected(answer, message_name(Held::type));
    }
    PageTable held = TRY(PageTable::create(services_.vm.memory().page_limit(), secret_));
    if (!TRY(read_inventories(head->inventories, deadline, held))) {
        return fail(Code::protocol, "the destination's inventory of pages is not in order");
    }
    return held;
}

}  // namespace migration
