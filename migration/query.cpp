#include "migration/query.hpp"

namespace migration {

RecordAnswer answer_from(const Record& record, bool alive, const Uuid& boot_id) {
    if (record.role != Role::destination) {
        return {QueryOutcome::unknown, false};
    }
    switch (record.status) {
        case RecordStatus::started:
            // Alive, it may still find that it cannot start.
            return {alive ? QueryOutcome::unknown : QueryOutcome::lost, false};
        case RecordStatus::running:
            return {alive ? QueryOutcome::running : QueryOutcome::lost, false};
        case RecordStatus::ready:
            if (alive) {
                // It may be handling Commit this very moment.
                return {QueryOutcome::unknown, false};
            }
            // Under another boot id an overwrite with `started` may have been lost with the page cache.
            return record.boot_id == boot_id ? RecordAnswer{QueryOutcome::refused, true}
                                             : RecordAnswer{QueryOutcome::lost, false};
        case RecordStatus::refused:
            return {QueryOutcome::refused, false};
        case RecordStatus::failed:
            return {QueryOutcome::failed, false};
        case RecordStatus::done:
            // The source knew that the guest runs here; what became of it since is no matter of the handover.
            return {QueryOutcome::running, false};
        case RecordStatus::intent:
        case RecordStatus::committing:
            return {QueryOutcome::unknown, false};
    }
    return {QueryOutcome::unknown, false};
}

QueryOutcome answer_query(const RecordDirectory& records, const Hello& hello, const Uuid& boot_id) {
    const auto found = records.find(hello.session, Role::destination);
    if (!found || !*found || !equal_secrets((*found)->record.secret, hello.secret)) {
        return QueryOutcome::unknown;
    }
    const RecordAnswer answer = answer_from((*found)->record, (*found)->alive, boot_id);
    if (answer.write_refused && !records.take_over(hello.session, Role::destination, RecordStatus::refused)) {
        return QueryOutcome::unknown;
    }
    return answer.outcome;
}

}  // namespace migration
