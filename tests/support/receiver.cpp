#include "tests/support/receiver.hpp"

namespace tests {

using migration::DestinationPhase;
using migration::Hello;
using migration::Purpose;
using migration::Record;
using migration::RecordHandle;
using migration::RecordStatus;
using migration::Role;
using migration::SourcePhase;
using vmm::Result;

void EventLog::on(const migration::Event& event) {
    {
        const std::lock_guard lock{mutex_};
        events_.push_back(event);
    }
    if (const auto* source = std::get_if<migration::SourceEntered>(&event.what); source && on_source) {
        on_source(source->phase);
    }
    if (const auto* destination = std::get_if<migration::DestinationEntered>(&event.what);
        destination && on_destination) {
        on_destination(destination->phase);
    }
}

std::vector<migration::Event> EventLog::take() {
    const std::lock_guard lock{mutex_};
    return std::exchange(events_, {});
}

void PhaseGate::hold() {
    std::unique_lock lock{mutex_};
    held_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return released_; });
}

void PhaseGate::wait_held() {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [this] { return held_; });
}

void PhaseGate::release() {
    const std::lock_guard lock{mutex_};
    released_ = true;
    changed_.notify_all();
}

class MemoryRecord final : public RecordHandle {
  public:
    MemoryRecord(MemoryRecords& store, Role role) : store_(store), role_(role) {}

    Result<void> update(RecordStatus status) override {
        const std::lock_guard lock{store_.mutex_};
        if (store_.failing_) {
            return vmm::fail(vmm::Code::io, "the record cannot be written");
        }
        store_.history_[role_].push_back(status);
        return {};
    }
    Result<void> sync() override { return {}; }

  private:
    MemoryRecords& store_;
    Role role_;
};

Result<std::unique_ptr<RecordHandle>> MemoryRecords::create(const Record& record) {
    const std::lock_guard lock{mutex_};
    if (failing_) {
        return vmm::fail(vmm::Code::io, "the record cannot be written");
    }
    history_[record.role].push_back(record.status);
    return std::unique_ptr<RecordHandle>(std::make_unique<MemoryRecord>(*this, record.role));
}

std::optional<RecordStatus> MemoryRecords::status(Role role) const {
    const auto all = history(role);
    return all.empty() ? std::nullopt : std::optional{all.back()};
}

std::vector<RecordStatus> MemoryRecords::history(Role role) const {
    const std::lock_guard lock{mutex_};
    const auto found = history_.find(role);
    return found == history_.end() ? std::vector<RecordStatus>{} : found->second;
}

Result<std::unique_ptr<migration::Transport>> Receiver::connect(const migration::Deadline&) {
    if (!reachable) {
        return vmm::fail(vmm::Code::io, "nobody is there");
    }
    auto [ours, theirs] = make_memory_transports();
    const Fault fault = made_.size() < faults.size() ? faults[made_.size()] : Fault{};
    auto point = std::make_unique<ByteFault>(fault);
    point->before_send = before_send;
    auto faulty = std::make_unique<migration::FaultyTransport>(std::move(ours), *point);
    {
        const std::lock_guard lock{mutex_};
        points_.push_back(std::move(point));
        made_.push_back(faulty.get());
    }
    threads_.emplace_back([this, transport = std::move(theirs)]() mutable { serve(std::move(transport)); });
    return std::unique_ptr<migration::Transport>(std::move(faulty));
}

void Receiver::serve(std::unique_ptr<migration::Transport> transport) {
    migration::MessageStream first_words{std::move(transport)};
    auto incoming = first_words.receive(4096);
    const Hello* hello = incoming ? std::get_if<Hello>(&incoming->message) : nullptr;
    if (hello == nullptr) {
        return;
    }
    if (hello->purpose == Purpose::control || hello->purpose == Purpose::preflight) {
        migration::DestinationSession* session = nullptr;
        {
            const std::lock_guard lock{mutex_};
            VERIFY(!session_);
            session_ = std::make_unique<migration::DestinationSession>(
                *hello, first_words.release(),
                migration::DestinationServices{vm, records, vmm::real_clock(), events_, {}});
            session = session_.get();
        }
        session_made_.notify_all();
        session->run();
        return;
    }
    migration::DestinationSession* session = nullptr;
    {
        std::unique_lock lock{mutex_};
        session_made_.wait_for(lock, std::chrono::seconds{10}, [this] { return session_ != nullptr; });
        session = session_.get();
    }
    if (session == nullptr) {
        return;
    }
    if (hello->purpose == Purpose::resume) {
        session->resume(*hello, first_words.release());
        return;
    }
    if (hello->purpose == Purpose::data) {
        session->join(*hello, first_words.release());
        return;
    }
    (void)first_words.send(migration::QueryAnswer{session->query()});
    (void)first_words.expect<migration::Acknowledge>();
}

void Receiver::cut() {
    const std::lock_guard lock{mutex_};
    made_.front()->shutdown();
}

void Receiver::join() {
    for (std::thread& thread : threads_) {
        thread.join();
    }
    threads_.clear();
}

migration::Outcome Bed::migrate(migration::SourceOptions options) {
    engine = std::make_unique<migration::Source>(
        migration::SourceServices{source, receiver, source_records, vmm::real_clock(), events, {}}, options);
    const migration::Outcome outcome = engine->run();
    receiver.join();
    migration_report = migration::fold(events.take());
    return outcome;
}

}  // namespace tests
