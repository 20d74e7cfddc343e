#include "migration/record.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <ctime>

#include "vmm/base/bytes.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/decode.hpp"
#include "vmm/state/encode.hpp"

namespace migration {

using vmm::Bytes;
using vmm::Code;
using vmm::fail;
using vmm::fail_errno;
using vmm::Result;
using vmm::UniqueFd;

namespace {

constexpr std::uint64_t kRecordMagic = 0x3143'4552'5457'4447;  // "GDWTREC1"
constexpr std::size_t kSector = RecordDirectory::kSectorBytes;
constexpr std::size_t kHashOffset = kSector - sizeof(std::uint64_t);
constexpr std::time_t kKeepSeconds = 24 * 60 * 60;

std::string file_name(const SessionId& session, Role role) {
    return to_hex(session) + (role == Role::source ? ".source" : ".destination");
}

// An OFD lock belongs to the open file, so it survives fork and ends with the last process that holds it.
bool lock(const UniqueFd& file) {
    struct flock request {};
    request.l_type = F_WRLCK;
    request.l_whence = SEEK_SET;
    return ::fcntl(file.get(), F_OFD_SETLK, &request) == 0;
}

// Whether somebody else holds the lock. Asks without taking it: two who look at once must not see each other.
Result<bool> is_locked(const UniqueFd& file) {
    struct flock request {};
    request.l_type = F_WRLCK;
    request.l_whence = SEEK_SET;
    if (::fcntl(file.get(), F_OFD_GETLK, &request) != 0) {
        return fail_errno(Code::io, "look at the lock of a handover record");
    }
    return request.l_type != F_UNLCK;
}

Result<void> write_sector(const UniqueFd& file, const Record& record) {
    const Bytes sector = encode_sector(record);
    if (::pwrite(file.get(), sector.data(), sector.size(), 0) != static_cast<ssize_t>(sector.size())) {
        return fail_errno(Code::io, "write a handover record");
    }
    return {};
}

Result<Record> read_sector(const UniqueFd& file) {
    std::array<std::byte, kSector> sector;
    if (::pread(file.get(), sector.data(), sector.size(), 0) != static_cast<ssize_t>(sector.size())) {
        return fail(Code::corrupt, "a handover record is shorter than {} bytes", kSector);
    }
    return decode_sector(sector);
}

class RecordFile final : public RecordHandle {
  public:
    RecordFile(UniqueFd file, Record record) : file_(std::move(file)), record_(std::move(record)) {}

    Result<void> update(RecordStatus status) override {
        record_.status = status;
        return write_sector(file_, record_);
    }
    Result<void> sync() override {
        return ::fsync(file_.get()) == 0 ? Result<void>{} : fail_errno(Code::io, "sync a handover record");
    }

  private:
    UniqueFd file_;
    Record record_;
};

}  // namespace

std::string_view name_of(RecordStatus status) {
    constexpr std::array<std::string_view, 8> names{"intent",  "committing", "done",    "ready",
                                                    "started", "failed",     "refused", "running"};
    return names[static_cast<std::size_t>(status)];
}

Bytes encode_sector(const Record& record) {
    Bytes sector;
    vmm::ByteWriter out{sector};
    out.put(kRecordMagic);
    const Bytes body = vmm::encode(record);
    out.put(static_cast<std::uint16_t>(body.size()));
    out.put(body);
    VERIFY(sector.size() <= kHashOffset);
    sector.resize(kHashOffset);
    out.put(static_cast<std::uint64_t>(XXH3_64bits(sector.data(), sector.size())));
    return sector;
}

Result<Record> decode_sector(std::span<const std::byte> sector) {
    vmm::ByteReader in{sector};
    std::uint64_t magic = 0;
    std::uint16_t size = 0;
    std::span<const std::byte> body;
    if (sector.size() != kSector || !in.get(magic) || magic != kRecordMagic || !in.get(size) ||
        !in.get(size, body)) {
        return fail(Code::corrupt, "this is not a handover record");
    }
    if (XXH3_64bits(sector.data(), kHashOffset) != vmm::load_le<std::uint64_t>(sector.data() + kHashOffset)) {
        return fail(Code::corrupt, "a handover record's checksum is wrong");
    }
    return vmm::decode<Record>(body, Record::id.current).context("handover record");
}

Result<RecordDirectory> RecordDirectory::open(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno(Code::io, "create record directory {}", path);
    }
    UniqueFd directory{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!directory) {
        return fail_errno(Code::io, "open record directory {}", path);
    }
    // Who can write here can plant a record that says `refused` for a guest that runs.
    struct stat info {};
    if (::fstat(directory.get(), &info) != 0) {
        return fail_errno(Code::io, "look at record directory {}", path);
    }
    if (info.st_uid != ::geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return fail(Code::invalid, "record directory {} can be written by others; chown it and chmod 700",
                    path);
    }
    return RecordDirectory{std::move(directory), path};
}

Result<std::unique_ptr<RecordHandle>> RecordDirectory::create(const Record& record) {
    const std::string name = file_name(record.session, record.role);
    UniqueFd file{::openat(directory_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
    if (!file) {
        return fail_errno(Code::io, "create handover record {}/{}", path_, name);
    }
    if (!lock(file)) {
        return fail_errno(Code::io, "lock handover record {}/{}", path_, name);
    }
    TRY(write_sector(file, record));
    // The name must be as durable as the sector: a record that vanishes answers "unknown".
    if (::fsync(file.get()) != 0 || ::fsync(directory_.get()) != 0) {
        return fail_errno(Code::io, "sync handover record {}/{}", path_, name);
    }
    return std::unique_ptr<RecordHandle>(std::make_unique<RecordFile>(std::move(file), record));
}

Result<std::optional<RecordDirectory::Found>> RecordDirectory::find(const SessionId& session,
                                                                    Role role) const {
    const std::string name = file_name(session, role);
    const UniqueFd file{::openat(directory_.get(), name.c_str(), O_RDWR | O_CLOEXEC)};
    if (!file) {
        if (errno == ENOENT) {
            return std::optional<Found>{};
        }
        return fail_errno(Code::io, "open handover record {}/{}", path_, name);
    }
    // The lock first: what is read after a free one is the last word of a dead process.
    const bool alive = TRY(is_locked(file));
    return std::optional<Found>{Found{TRY(read_sector(file).context(name)), alive}};
}

Result<void> RecordDirectory::take_over(const SessionId& session, Role role, RecordStatus status) const {
    const std::string name = file_name(session, role);
    const UniqueFd file{::openat(directory_.get(), name.c_str(), O_RDWR | O_CLOEXEC)};
    if (!file || !lock(file)) {
        return fail_errno(Code::io, "take over handover record {}/{}", path_, name);
    }
    Record record = TRY(read_sector(file).context(name));
    record.status = status;
    TRY(write_sector(file, record));
    if (::fsync(file.get()) != 0) {
        return fail_errno(Code::io, "sync handover record {}/{}", path_, name);
    }
    return {};
}

void RecordDirectory::remove_expired() const {
    const std::unique_ptr<DIR, int (*)(DIR*)> listing{::opendir(path_.c_str()), &::closedir};
    if (!listing) {
        return;
    }
    while (const dirent* entry = ::readdir(listing.get())) {
        const std::string_view name = entry->d_name;
        if (!name.ends_with(".source") && !name.ends_with(".destination")) {
            continue;
        }
        const UniqueFd file{::openat(directory_.get(), entry->d_name, O_RDWR | O_CLOEXEC)};
        struct stat info {};
        if (!file || ::fstat(file.get(), &info) != 0 || info.st_mtime + kKeepSeconds > std::time(nullptr) ||
            !lock(file)) {
            continue;
        }
        const Result<Record> record = read_sector(file);
        const bool serves_nobody =
            record && (record->status == RecordStatus::done || record->status == RecordStatus::failed ||
                       record->status == RecordStatus::refused || record->status == RecordStatus::intent);
        if (serves_nobody) {
            ::unlinkat(directory_.get(), entry->d_name, 0);
        }
    }
}

Result<Uuid> host_boot_id() {
    constexpr const char* path = "/proc/sys/kernel/random/boot_id";
    const UniqueFd file{::open(path, O_RDONLY | O_CLOEXEC)};
    std::array<char, 36> text;
    if (!file || ::read(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
        return fail_errno(Code::io, "read {}", path);
    }
    Uuid id{};
    std::size_t digit = 0;
    for (const char c : text) {
        if (c == '-') {
            continue;
        }
        const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value < 0 || digit / 2 >= id.size()) {
            return fail(Code::corrupt, "{} is not a UUID", path);
        }
        id[digit / 2] = static_cast<std::uint8_t>(id[digit / 2] << 4 | value);
        ++digit;
    }
    return id;
}

}  // namespace migration
