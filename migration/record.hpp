// Records: what each side knows of a handover, on disk. PROTOCOL.md section 5 says when each is written.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "migration/ids.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/result.hpp"
#include "vmm/base/unique_fd.hpp"
#include "vmm/state/field.hpp"

namespace migration {

enum class Role : std::uint8_t { source, destination };
enum class RecordStatus : std::uint8_t { intent, committing, done, ready, started, failed, refused, running };

std::string_view name_of(RecordStatus status);

struct Record {
    static constexpr vmm::StateId id{"handover-record", 1, 1};

    Role role = Role::source;
    RecordStatus status = RecordStatus::intent;
    SessionId session{};
    Secret secret{};
    Uuid uuid{};
    Uuid boot_id{};  // of the host that wrote it
    std::uint64_t epoch = 0;
    std::string name;
    std::string peer;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        v.enumeration("role", self.role, Role::destination);
        v.enumeration("status", self.status, RecordStatus::running);
        v.field("session", self.session);
        v.field("secret", self.secret);
        v.field("uuid", self.uuid);
        v.field("boot_id", self.boot_id);
        v.field("epoch", self.epoch);
        v.text("name", self.name, 64);
        v.text("peer", self.peer, 128);
    }
};

// One record of a session whose process lives. Its file is locked (an OFD lock) until this object is
// destroyed.
class RecordHandle {
  public:
    virtual ~RecordHandle() = default;
    // Overwrites the one sector in place, without fsync: this happens inside the pause.
    virtual vmm::Result<void> update(RecordStatus status) = 0;
    // Brings that to the storage; never inside the pause.
    virtual vmm::Result<void> sync() = 0;
};

class RecordStore {
  public:
    virtual ~RecordStore() = default;
    // A new record, fsynced with its directory.
    virtual vmm::Result<std::unique_ptr<RecordHandle>> create(const Record& record) = 0;
};

// Files `<session>.source` and `<session>.destination` of 512 bytes each, mode 0600.
class RecordDirectory final : public RecordStore {
  public:
    static constexpr std::size_t kSectorBytes = 512;

    // Makes the directory (0700) when it is missing; refuses one that others can write.
    static vmm::Result<RecordDirectory> open(const std::string& path);

    vmm::Result<std::unique_ptr<RecordHandle>> create(const Record& record) override;

    struct Found {
        Record record;
        bool alive = false;  // the process that made it still holds its lock
    };
    // Nothing when there is no such record; an error when it cannot be read.
    vmm::Result<std::optional<Found>> find(const SessionId& session, Role role) const;
    // Takes the lock of a dead process and overwrites the status; fails when it is alive after all.
    vmm::Result<void> take_over(const SessionId& session, Role role, RecordStatus status) const;
    // Records of dead processes that are terminal, or that never got to a handover, serve nobody after a day.
    void remove_expired() const;

  private:
    explicit RecordDirectory(vmm::UniqueFd directory, std::string path)
        : directory_(std::move(directory)), path_(std::move(path)) {}

    vmm::UniqueFd directory_;
    std::string path_;
};

// The sector of a record: magic, encoded record, zeros, and an XXH3-64 of all before it in the last 8 bytes.
vmm::Bytes encode_sector(const Record& record);
vmm::Result<Record> decode_sector(std::span<const std::byte> sector);

// /proc/sys/kernel/random/boot_id.
vmm::Result<Uuid> host_boot_id();

}  // namespace migration
