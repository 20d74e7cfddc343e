#include "devices/virtio/disk_ring.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "tests/unit/devices/serial_host.hpp"

using devices::virtio::DiskRing;

namespace {

// A disk's ring, in the hands of somebody who wants something else of it.
struct OpenRing {
    OpenRing() {
        std::ofstream{path} << std::string(4096, 'x');
        file = vmm::UniqueFd{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
        auto made = vmm::WakeFd::create();
        REQUIRE(made);
        event.emplace(std::move(*made));
        const iovec buffer{bytes.data(), bytes.size()};
        REQUIRE(DiskRing::set_up(ring, file.get(), {&buffer, 1}, event->fd()));
    }
    ~OpenRing() { ::io_uring_queue_exit(&ring); }
    OpenRing(const OpenRing&) = delete;
    OpenRing& operator=(const OpenRing&) = delete;

    // What comes of the one that `prepare` has filled in.
    template <typename Prepare>
    int result(Prepare prepare, unsigned flags) {
        io_uring_sqe* entry = ::io_uring_get_sqe(&ring);
        prepare(entry);
        entry->flags |= static_cast<std::uint8_t>(flags);
        REQUIRE(::io_uring_submit(&ring) == 1);
        io_uring_cqe* done = nullptr;
        REQUIRE(::io_uring_wait_cqe(&ring, &done) == 0);
        const int result = done->res;
        ::io_uring_cqe_seen(&ring, done);
        return result;
    }

    tests::TempFolder folder;
    const std::string path = folder.file("disk");
    vmm::UniqueFd file;
    std::optional<vmm::WakeFd> event;
    std::array<char, 512> bytes{};
    io_uring ring{};
};

}  // namespace

TEST_CASE("a disk's ring does nothing that a disk does not need", "[devices]") {
    OpenRing open;
    const auto fixed = IOSQE_FIXED_FILE;
    char* const to = open.bytes.data();
    const auto read = [&](int file) {
        return [=](io_uring_sqe* entry) { ::io_uring_prep_read_fixed(entry, file, to, 512, 0, 0); };
    };
    CHECK(open.result(read(0), fixed) == 512);
    CHECK(open.bytes[0] == 'x');
    CHECK(open.result([](io_uring_sqe* entry) { ::io_uring_prep_fsync(entry, 0, 0); }, fixed) == 0);

    // To another file, by its descriptor.
    CHECK(open.result(read(open.file.get()), 0) == -EACCES);
    // Other operations, on no file or on this one.
    CHECK(open.result([](io_uring_sqe* entry) { ::io_uring_prep_openat(entry, AT_FDCWD, "/", O_RDONLY, 0); },
                      0) == -EACCES);
    CHECK(open.result([](io_uring_sqe* entry) { ::io_uring_prep_unlink(entry, "/none", 0); }, 0) == -EACCES);
    CHECK(open.result([](io_uring_sqe* entry) { ::io_uring_prep_socket(entry, AF_INET, SOCK_STREAM, 0, 0); },
                      0) == -EACCES);
    CHECK(open.result([](io_uring_sqe* entry) { ::io_uring_prep_connect(entry, 0, nullptr, 0); }, fixed) ==
          -EACCES);
    CHECK(open.result([&](io_uring_sqe* entry) { ::io_uring_prep_read(entry, 0, to, 512, 0); }, fixed) ==
          -EACCES);
    CHECK(open.result([](io_uring_sqe* entry) { ::io_uring_prep_nop(entry); }, fixed) == -EACCES);
    // Nor with flags, which link operations or take their buffers elsewhere; and the image stays what it is.
    CHECK(open.result(read(0), fixed | IOSQE_ASYNC) == -EACCES);
    const int other = open.event->fd();
    CHECK(::io_uring_register_files_update(&open.ring, 0, &other, 1) == -EACCES);
    CHECK(::io_uring_unregister_files(&open.ring) == -EACCES);
}
