// A destination whose connection broke: what it keeps, and how the session goes on.
#include <algorithm>

#include "migration/destination.hpp"
#include "vmm/guest/population.hpp"

namespace migration {

bool Destination::park() {
    bool parked = false;
    {
        const std::lock_guard lock{mutex_};
        if (keep_ > vmm::Duration::zero()) {
            // From Loaded too: a Commit that was on its way is lost with its connection, and what was loaded
            // is loaded anew.
            parked = std::visit(
                [&](auto& state) {
                    using StateType = std::decay_t<decltype(state)>;
                    if constexpr (std::is_same_v<StateType, Receiving> ||
                                  std::is_same_v<StateType, Verified> || std::is_same_v<StateType, Loaded>) {
                        enter(DestinationPhase::parked,
                              Parked{std::move(state.manifest), std::move(state.record)});
                        return true;
                    } else {
                        return std::is_same_v<StateType, Parked>;
                    }
                },
                state_);
        }
    }
    announce();
    return parked;
}

bool Destination::resumable() const {
    const std::lock_guard lock{mutex_};
    return keep_ > vmm::Duration::zero() &&
           (std::holds_alternative<Receiving>(state_) || std::holds_alternative<Verified>(state_) ||
            std::holds_alternative<Loaded>(state_) || std::holds_alternative<Parked>(state_));
}

vmm::Duration Destination::keep() const {
    const std::lock_guard lock{mutex_};
    return keep_;
}

// A frame that was cut off has changed memory and not the table, and loading the state wrote memory too: only
// memory knows what is held.
Step Destination::handle(Parked& state, const Resume& resume) {
    Digest sum = digest_of_streams();
    const auto populated = vmm::populated_pages(services_.vm.memory());
    if (!populated) {
        return fail(populated.error().text());
    }
    for (std::uint64_t page = 0; page < table_->size(); ++page) {
        table_->set(page, populated->test(page) ? entry_in_memory(page) : Digest{}, sum);
    }
    digest_before_ = sum;
    begin_receiving(std::move(state.manifest), std::move(state.record), resume.next_round);
    std::vector<Message> table = inventories();
    Step step{{Held{static_cast<std::uint32_t>(table.size())}}, false};
    step.replies.insert(step.replies.end(), std::make_move_iterator(table.begin()),
                        std::make_move_iterator(table.end()));
    return step;
}

void Destination::begin_receiving(Manifest manifest, std::unique_ptr<RecordHandle> record,
                                  std::uint32_t round) {
    const auto count = std::max<std::uint16_t>(streams_, 1);
    receivers_.clear();
    for (std::uint16_t stream = 0; stream < count; ++stream) {
        receivers_.push_back(std::make_unique<PageReceiver>(stream, count, services_.vm.memory(), *table_));
    }
    enter(DestinationPhase::receiving,
          Receiving{std::move(manifest), std::move(record), std::vector<bool>(count, false),
                    std::vector<std::uint32_t>(count, round)});
}

std::vector<Message> Destination::inventories() const {
    std::vector<Message> all;
    for (std::uint64_t first = 0; first < table_->size(); first += Inventory::kMaxHashes) {
        const std::uint64_t end = std::min<std::uint64_t>(first + Inventory::kMaxHashes, table_->size());
        Inventory inventory{first, {}};
        bool any = false;
        for (std::uint64_t page = first; page < end; ++page) {
            inventory.hashes.push_back(table_->entry(page));
            any = any || !(inventory.hashes.back() == Digest{});
        }
        if (any) {
            all.emplace_back(std::move(inventory));
        }
    }
    return all;
}

}  // namespace migration
