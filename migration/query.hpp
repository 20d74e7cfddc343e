// What a record answers to Query: the table of PROTOCOL.md section 5, for sessions that this process does not
// serve.
#pragma once

#include "migration/message.hpp"
#include "migration/record.hpp"

namespace migration {

struct RecordAnswer {
    QueryOutcome outcome = QueryOutcome::unknown;
    // `refused` must be on disk before the answer is given.
    bool write_refused = false;
};

// Pure. `alive`: the process that wrote the record still holds its lock, but is not ours to ask.
RecordAnswer answer_from(const Record& record, bool alive, const Uuid& boot_id);

// The answer to a Hello(query) from the records alone; a wrong secret is answered like an unknown session.
QueryOutcome answer_query(const RecordDirectory& records, const Hello& hello, const Uuid& boot_id);

}  // namespace migration
