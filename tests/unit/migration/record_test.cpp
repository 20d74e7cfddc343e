#include "migration/record.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "migration/query.hpp"
#include "tests/golden/golden.hpp"
#include "vmm/state/describe.hpp"

using namespace migration;

namespace {

class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        char name[] = "/tmp/godwit-records-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path_ = name;
    }
    ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

Record make_record(RecordStatus status, Uuid boot_id = {}) {
    Record record;
    record.role = Role::destination;
    record.status = status;
    record.session[0] = 9;
    record.secret[0] = 3;
    record.boot_id = boot_id;
    record.epoch = 5;
    record.name = "guest";
    record.peer = "tcp:127.0.0.1:7000";
    return record;
}

Hello query_for(const Record& record) {
    return {{kProtocolVersion}, Purpose::query, record.session, record.secret, 0};
}

}  // namespace

TEST_CASE("every (record, Query) pair is answered as the table says", "[migration]") {
    const Uuid here{1};
    const Uuid before{2};
    struct Row {
        RecordStatus status;
        bool alive;
        Uuid boot_id;
        QueryOutcome outcome;
        bool write_refused;
    };
    const std::vector<Row> table{
        {RecordStatus::running, true, here, QueryOutcome::running, false},
        {RecordStatus::running, false, here, QueryOutcome::lost, false},
        {RecordStatus::running, false, before, QueryOutcome::lost, false},
        {RecordStatus::started, true, here, QueryOutcome::unknown, false},
        {RecordStatus::started, false, here, QueryOutcome::lost, false},
        {RecordStatus::started, false, before, QueryOutcome::lost, false},
        {RecordStatus::ready, true, here, QueryOutcome::unknown, false},
        {RecordStatus::ready, false, here, QueryOutcome::refused, true},
        {RecordStatus::ready, false, before, QueryOutcome::lost, false},
        {RecordStatus::refused, true, here, QueryOutcome::refused, false},
        {RecordStatus::refused, false, here, QueryOutcome::refused, false},
        {RecordStatus::refused, false, before, QueryOutcome::refused, false},
        {RecordStatus::failed, true, here, QueryOutcome::failed, false},
        {RecordStatus::failed, false, here, QueryOutcome::failed, false},
        {RecordStatus::failed, false, before, QueryOutcome::failed, false},
        {RecordStatus::intent, false, here, QueryOutcome::unknown, false},
        {RecordStatus::committing, false, here, QueryOutcome::unknown, false},
        {RecordStatus::done, false, here, QueryOutcome::running, false},
    };
    for (const Row& row : table) {
        INFO(name_of(row.status) << (row.alive ? " alive" : " dead")
                                 << (row.boot_id == here ? "" : ", other boot"));
        const RecordAnswer answer = answer_from(make_record(row.status, row.boot_id), row.alive, here);
        CHECK(answer.outcome == row.outcome);
        CHECK(answer.write_refused == row.write_refused);
    }
    Record source = make_record(RecordStatus::started, here);
    source.role = Role::source;
    CHECK(answer_from(source, false, here).outcome == QueryOutcome::unknown);
}

TEST_CASE("a record file is found, updated in place, and locked while its process lives", "[migration]") {
    TemporaryDirectory directory;
    auto records = RecordDirectory::open(directory.path());
    REQUIRE(records);
    const Record record = make_record(RecordStatus::ready);
    {
        auto handle = records->create(record);
        REQUIRE(handle);
        CHECK(!records->create(record));  // a session has one record a role
        auto found = records->find(record.session, Role::destination);
        REQUIRE((found && *found));
        CHECK((*found)->alive);
        CHECK((*found)->record.status == RecordStatus::ready);
        CHECK((*found)->record.peer == record.peer);
        CHECK(!records->take_over(record.session, Role::destination, RecordStatus::refused));
        REQUIRE((*handle)->update(RecordStatus::started));
    }
    auto found = records->find(record.session, Role::destination);
    REQUIRE((found && *found));
    CHECK(!(*found)->alive);
    CHECK((*found)->record.status == RecordStatus::started);
    auto none = records->find(record.session, Role::source);
    REQUIRE(none);
    CHECK(!*none);
    const auto file = std::filesystem::directory_iterator {
        directory.path()
        } -> path();
    CHECK(std::filesystem::file_size(file) == RecordDirectory::kSectorBytes);
    CHECK((std::filesystem::status(file).permissions() & std::filesystem::perms::all) ==
          (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
}

TEST_CASE("`refused` is on disk before it is answered for a dead session", "[migration]") {
    TemporaryDirectory directory;
    auto records = RecordDirectory::open(directory.path());
    REQUIRE(records);
    const Uuid boot{7};
    const Record record = make_record(RecordStatus::ready, boot);
    REQUIRE(records->create(record));
    CHECK(answer_query(*records, query_for(record), boot) == QueryOutcome::refused);
    auto found = records->find(record.session, Role::destination);
    REQUIRE((found && *found));
    CHECK((*found)->record.status == RecordStatus::refused);
}

TEST_CASE("a record directory that others can write is refused", "[migration]") {
    TemporaryDirectory directory;
    std::filesystem::permissions(directory.path(), std::filesystem::perms::all);
    CHECK(!RecordDirectory::open(directory.path()));
}

TEST_CASE("a query with a wrong secret or session learns nothing", "[migration]") {
    TemporaryDirectory directory;
    auto records = RecordDirectory::open(directory.path());
    REQUIRE(records);
    const Record record = make_record(RecordStatus::running);
    auto handle = records->create(record);
    REQUIRE(handle);
    Hello hello = query_for(record);
    CHECK(answer_query(*records, hello, {}) == QueryOutcome::running);
    hello.secret[31] = 1;
    CHECK(answer_query(*records, hello, {}) == QueryOutcome::unknown);
    hello = query_for(record);
    hello.session[15] = 1;
    CHECK(answer_query(*records, hello, {}) == QueryOutcome::unknown);
}

TEST_CASE("a damaged record is refused, whatever the damage", "[migration]") {
    const vmm::Bytes good = encode_sector(make_record(RecordStatus::ready));
    REQUIRE(good.size() == RecordDirectory::kSectorBytes);
    REQUIRE(decode_sector(good));
    for (std::size_t size = 0; size < good.size(); ++size) {
        CHECK(!decode_sector(std::span{good}.first(size)));
    }
    for (std::size_t byte = 0; byte < good.size(); ++byte) {
        vmm::Bytes bad = good;
        bad[byte] ^= std::byte{0x10};
        CHECK(!decode_sector(bad));
    }
}

TEST_CASE("the boot id of this host can be read", "[migration]") {
    const auto id = host_boot_id();
    REQUIRE(id);
    CHECK(*id != Uuid{});
    CHECK(*id == *host_boot_id());
}

TEST_CASE("the record's sector has not changed without a new version", "[migration]") {
    tests::check_golden("schema/handover-record-v1.txt", vmm::describe<Record>());
    tests::check_golden("stream/handover-record-v1.bin",
                        encode_sector(make_record(RecordStatus::ready, Uuid{1})));
}
