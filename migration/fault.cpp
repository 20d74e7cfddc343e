#include "migration/fault.hpp"

#include <signal.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace migration {

using vmm::Code;
using vmm::fail;
using vmm::Result;

namespace {

using Kind = FaultPlan::Kind;

struct KindEntry {
    Kind kind;
    std::string_view name;
    std::uint32_t step;     // when none is given
    std::int64_t argument;  // when none is given
};
constexpr std::array kKinds{
    KindEntry{Kind::cut, "cut", 1, 0},
    KindEntry{Kind::truncate, "truncate", 1, 1},
    KindEntry{Kind::stall, "stall", 1, 0},
    KindEntry{Kind::delay, "delay", 1, 500},
    KindEntry{Kind::corrupt, "corrupt", 1, 0},
    KindEntry{Kind::duplicate, "duplicate", 1, 0},
    KindEntry{Kind::reorder, "reorder", 1, 0},
    KindEntry{Kind::late, "late", 1, 1500},
    KindEntry{Kind::kill, "kill", 0, 0},
    KindEntry{Kind::stop, "stop", 0, 0},
    KindEntry{Kind::disk_full, "disk-full", 1, 0},
    KindEntry{Kind::read_only, "read-only", 1, 0},
    KindEntry{Kind::clock, "clock", 0, 3600},
};

const KindEntry& entry_of(Kind kind) {
    return *std::find_if(kKinds.begin(), kKinds.end(),
                         [&](const KindEntry& entry) { return entry.kind == kind; });
}

template <typename Phase>
std::vector<std::string_view> names_up_to(Phase last) {
    std::vector<std::string_view> names;
    for (int i = 0; i <= static_cast<int>(last); ++i) {
        names.push_back(name_of(static_cast<Phase>(i)));
    }
    return names;
}

std::vector<std::string_view> phases_of(Role side) {
    return side == Role::source ? names_up_to(SourcePhase::done) : names_up_to(DestinationPhase::parked);
}

template <typename T>
bool parse_number(std::string_view text, T& to) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
    return error == std::errc{} && end == text.data() + text.size();
}

bool is_of_records(Kind kind) {
    return kind == Kind::disk_full || kind == Kind::read_only;
}

bool ends_process(Kind kind) {
    return kind == Kind::kill || kind == Kind::stop;
}

Strike strike_of(const FaultPlan& plan, std::size_t size) {
    const auto argument = static_cast<std::uint64_t>(plan.argument);
    const vmm::Duration time = std::chrono::milliseconds{plan.argument};
    switch (plan.kind) {
        case Kind::cut:
            return {Strike::Kind::cut, 0, {}};
        case Kind::truncate:
            return {Strike::Kind::cut, std::min<std::uint64_t>(argument, size - 1), {}};
        case Kind::stall:
            return {Strike::Kind::silence, 0, {}};
        case Kind::delay:
            return {Strike::Kind::delay, 0, time};
        case Kind::corrupt:
            return {Strike::Kind::corrupt, argument % size, {}};
        case Kind::duplicate:
            return {Strike::Kind::duplicate, 0, {}};
        case Kind::reorder:
            return {Strike::Kind::reorder, 0, {}};
        case Kind::late:
            return {Strike::Kind::late, 0, time};
        default:
            return {};
    }
}

class FaultyConnector final : public Connector {
  public:
    FaultyConnector(Connector& inner, FaultInjector& injector) : inner_(inner), injector_(injector) {}

    Result<std::unique_ptr<Transport>> connect(const Deadline& deadline) override {
        return injector_.wrap(TRY(inner_.connect(deadline)));
    }
    std::string address() const override { return inner_.address(); }

  private:
    Connector& inner_;
    FaultInjector& injector_;
};

}  // namespace

Result<FaultPlan> FaultPlan::parse(std::string_view text, Role side) {
    const std::size_t at = text.find('@');
    const std::string_view kind = text.substr(0, at);
    const auto entry = std::find_if(kKinds.begin(), kKinds.end(),
                                    [&](const KindEntry& known) { return known.name == kind; });
    if (at == std::string_view::npos || entry == kKinds.end()) {
        std::vector<std::string_view> names;
        for (const KindEntry& known : kKinds) {
            names.push_back(known.name);
        }
        return fail(Code::invalid, "\"{}\" is not a fault; give KIND@PHASE[:N][=ARG] with one of {}", text,
                    fmt::join(names, ", "));
    }
    FaultPlan plan{entry->kind, {}, entry->step, entry->argument};
    std::string_view rest = text.substr(at + 1);
    if (const std::size_t equals = rest.find('='); equals != std::string_view::npos) {
        if (!parse_number(rest.substr(equals + 1), plan.argument) ||
            (plan.argument < 0 && plan.kind != Kind::clock)) {
            return fail(Code::invalid, "\"{}\": the argument after = is not a whole number", text);
        }
        rest = rest.substr(0, equals);
    }
    if (const std::size_t colon = rest.find(':'); colon != std::string_view::npos) {
        if (!parse_number(rest.substr(colon + 1), plan.step) || (plan.step == 0 && entry->step != 0)) {
            return fail(Code::invalid, "\"{}\": the step after : is not a number from 1", text);
        }
        rest = rest.substr(0, colon);
    }
    const auto phases = phases_of(side);
    if (std::find(phases.begin(), phases.end(), rest) == phases.end()) {
        return fail(Code::invalid, "\"{}\" has no phase of this side; they are {}", text,
                    fmt::join(phases, ", "));
    }
    plan.phase = rest;
    return plan;
}

std::string FaultPlan::text() const {
    return fmt::format("{}@{}:{}={}", entry_of(kind).name, phase, step, argument);
}

class FaultInjector::Handle final : public RecordHandle {
  public:
    Handle(std::unique_ptr<RecordHandle> inner, FaultInjector& injector)
        : inner_(std::move(inner)), injector_(injector) {}

    Result<void> update(RecordStatus status) override {
        TRY(injector_.record_write());
        TRY(inner_->update(status));
        injector_.stepped();
        return {};
    }
    Result<void> sync() override { return inner_->sync(); }

  private:
    std::unique_ptr<RecordHandle> inner_;
    FaultInjector& injector_;
};

class FaultInjector::Records final : public RecordStore {
  public:
    Records(RecordStore& inner, FaultInjector& injector) : inner_(inner), injector_(injector) {}

    Result<std::unique_ptr<RecordHandle>> create(const Record& record) override {
        TRY(injector_.record_write());
        auto handle = std::make_unique<Handle>(TRY(inner_.create(record)), injector_);
        injector_.stepped();
        return handle;
    }

  private:
    RecordStore& inner_;
    FaultInjector& injector_;
};

FaultInjector::FaultInjector(FaultPlan plan, EventSink& next, std::function<void(const std::string&)> struck)
    : plan_(std::move(plan)), next_(next), struck_(std::move(struck)) {
}

std::unique_ptr<Transport> FaultInjector::wrap(std::unique_ptr<Transport> transport) {
    FaultPoint& point = *this;
    return std::make_unique<FaultyTransport>(std::move(transport), point);
}

std::unique_ptr<Connector> FaultInjector::wrap(Connector& connector) {
    return std::make_unique<FaultyConnector>(connector, *this);
}

std::unique_ptr<RecordStore> FaultInjector::wrap(RecordStore& records) {
    return std::make_unique<Records>(records, *this);
}

void FaultInjector::on(const Event& event) {
    std::string_view phase;
    if (const auto* source = std::get_if<SourceEntered>(&event.what)) {
        phase = name_of(source->phase);
    } else if (const auto* destination = std::get_if<DestinationEntered>(&event.what)) {
        phase = name_of(destination->phase);
    }
    if (!phase.empty()) {
        const std::lock_guard lock{mutex_};
        in_phase_ = phase == plan_.phase;
        messages_ = records_ = 0;
        if (in_phase_ && plan_.kind == Kind::clock) {
            clock_jumped_ = true;
            tell();
        }
        end_process_if(in_phase_ && plan_.step == 0);
    }
    next_.on(event);
}

Strike FaultInjector::strike(Direction direction, std::uint64_t, std::size_t size) {
    if (direction != Direction::send) {
        return {};
    }
    const std::lock_guard lock{mutex_};
    if (!in_phase_ || ++messages_ != plan_.step || told_) {
        return {};
    }
    const Strike strike = strike_of(plan_, size);
    if (strike.kind != Strike::Kind::none) {
        tell();
    }
    return strike;
}

void FaultInjector::sent() {
    stepped();
}

Result<void> FaultInjector::record_write() {
    const std::lock_guard lock{mutex_};
    if (in_phase_ && ++records_ == plan_.step && is_of_records(plan_.kind)) {
        records_fail_ = true;
        tell();
    }
    if (records_fail_) {
        return vmm::Failure{vmm::Error::from_errno(Code::io, "write the handover record",
                                                   plan_.kind == Kind::disk_full ? ENOSPC : EROFS)};
    }
    return {};
}

void FaultInjector::stepped() {
    const std::lock_guard lock{mutex_};
    end_process_if(in_phase_ && messages_ + records_ == plan_.step);
}

void FaultInjector::end_process_if(bool due) {
    if (!due || !ends_process(plan_.kind) || told_) {
        return;
    }
    tell();
    (void)::raise(plan_.kind == Kind::kill ? SIGKILL : SIGSTOP);  // of the whole process
}

void FaultInjector::tell() {
    if (!std::exchange(told_, true)) {
        struck_(plan_.text());
    }
}

std::int64_t FaultInjector::realtime_ns() const {
    const std::lock_guard lock{mutex_};
    const std::int64_t ahead = clock_jumped_ ? plan_.argument * 1'000'000'000 : 0;
    return vmm::real_clock().realtime_ns() + ahead;
}

}  // namespace migration
