#include "devices/virtio/blk.hpp"

#include <fcntl.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/devices/serial_host.hpp"
#include "tests/unit/devices/virtio_host.hpp"

using namespace tests::mmio;
using devices::virtio::DiskConfig;
using devices::virtio::DiskImage;
using tests::UsedElement;
using tests::VirtioHost;

namespace {

constexpr std::uint64_t kSectors = 4096;  // 2 MiB
constexpr std::uint64_t kFlush = std::uint64_t{1} << 9;
constexpr std::uint64_t kHeader = VirtioHost::kData;
constexpr std::uint64_t kStatusAt = VirtioHost::kData + 0x100;
constexpr std::uint64_t kBlkBuffer = VirtioHost::kData + 0x1000;

struct BlkHost : VirtioHost {
    explicit BlkHost(bool read_only = false) {
        path = folder.file("disk");
        std::ofstream{path}.close();
        std::filesystem::resize_file(path, kSectors * 512);
        auto image = DiskImage::open({path, read_only, false});
        REQUIRE(image);
        disk = image->get();
        REQUIRE(disk->take());
        auto device = devices::virtio::Blk::create(std::move(*image), "a-disk-with-a-very-long-name");
        REQUIRE(device);
        make(std::move(*device));
    }
    // Queues a request; it is not kicked.
    void request(std::uint32_t type, std::uint64_t sector, std::vector<tests::Piece> data,
                 std::uint64_t at = kHeader, std::uint64_t status = kStatusAt) {
        store(at, type);
        store(at + 4, std::uint32_t{0});
        store(at + 8, sector);
        store(status, std::uint8_t{0xee});
        data.insert(data.begin(), {at, 16});
        data.push_back({status, 1, true});
        add(0, data);
    }
    std::uint8_t carry_out(std::uint32_t type, std::uint64_t sector, std::vector<tests::Piece> data) {
        request(type, sector, std::move(data));
        kick(0);
        written = wait_used(0, 1)[0].written;
        return load<std::uint8_t>(kStatusAt);
    }
    std::string on_disk(std::uint64_t offset, std::size_t size) {
        std::ifstream file{path, std::ios::binary};
        file.seekg(static_cast<std::streamoff>(offset));
        std::string bytes(size, '\0');
        file.read(bytes.data(), static_cast<std::streamsize>(size));
        return bytes;
    }

    tests::TempFolder folder;
    std::string path;
    DiskImage* disk = nullptr;
    std::uint32_t written = 0;
};

std::string pattern(std::size_t size, char first) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
        text[i] = static_cast<char>(first + static_cast<char>(i / 512));
    }
    return text;
}

}  // namespace

TEST_CASE("a disk is written, flushed and read", "[devices]") {
    const bool flush = GENERATE(false, true);
    BlkHost host;
    host.start(VirtioHost::kVersion1 | VirtioHost::kEventIdx | (flush ? kFlush : 0), 1);
    CHECK(host.load<std::uint8_t>(0) == 0);
    const std::string data = pattern(300 << 10, 'A');  // more than a buffer of the ring
    host.set_text(kBlkBuffer, data);
    CHECK(host.carry_out(1, 8, {{kBlkBuffer, 1024}, {kBlkBuffer + 1024, (300 << 10) - 1024}}) == 0);
    CHECK(host.written == 1);
    CHECK(host.on_disk(8 * 512, data.size()) == data);
    CHECK(host.carry_out(4, 0, {}) == 0);
    host.set_text(kBlkBuffer, std::string(300 << 10, 'x'));
    CHECK(host.carry_out(0, 8, {{kBlkBuffer, 300 << 10, true}}) == 0);
    CHECK(host.written == (300 << 10) + 1);
    CHECK(host.text(kBlkBuffer, data.size()) == data);
    CHECK(host.wait_interrupt());
}

TEST_CASE("a guest hears of writes that were lost when nobody was there to tell it", "[devices]") {
    BlkHost host;
    host.start(VirtioHost::kVersion1 | kFlush, 1);
    CHECK(host.carry_out(4, 0, {}) == 0);
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const vmm::UniqueFd ends[] = {vmm::UniqueFd{pipe[0]}, vmm::UniqueFd{pipe[1]}};
    const vmm::UniqueFd image{::fcntl(host.disk->fd(), F_DUPFD_CLOEXEC, 0)};
    REQUIRE(::dup3(pipe[0], host.disk->fd(), O_CLOEXEC) >= 0);  // fdatasync(2) fails on it
    REQUIRE(host.disk->begin_flush());
    CHECK(host.disk->wait_flushed(std::chrono::seconds{10}).error().code() == vmm::Code::io);
    REQUIRE(::dup3(image.get(), host.disk->fd(), O_CLOEXEC) >= 0);
    REQUIRE(host.disk->begin_flush());
    CHECK_FALSE(host.disk->wait_flushed(std::chrono::seconds{10}));
    CHECK(host.carry_out(4, 0, {}) == 1);
}

TEST_CASE("what a disk says of itself", "[devices]") {
    BlkHost host;
    // io_uring does not wait for such a file where it has to.
    CHECK((::fcntl(host.disk->fd(), F_GETFL) & O_NONBLOCK) == 0);
    host.start(VirtioHost::kVersion1, 1);
    CHECK(host.read(kConfig) == kSectors);
    CHECK(host.read(kConfig + 20) == 512);
    CHECK(host.carry_out(8, 0, {{kBlkBuffer, 20, true}}) == 0);
    CHECK(host.text(kBlkBuffer, 20) == "a-disk-with-a-very-l");
    CHECK(host.written == 21);
}

TEST_CASE("zeroes are written and blocks discarded", "[devices]") {
    BlkHost host;
    host.start(VirtioHost::kVersion1 | kFlush, 1);
    host.set_text(kBlkBuffer, pattern(4096 * 4, 'A'));
    REQUIRE(host.carry_out(1, 0, {{kBlkBuffer, 4096 * 4}}) == 0);
    const auto range = [&](std::uint64_t sector, std::uint32_t count, std::uint32_t flags) {
        host.store(kBlkBuffer, sector);
        host.store(kBlkBuffer + 8, count);
        host.store(kBlkBuffer + 12, flags);
    };
    range(8, 8, 0);
    CHECK(host.carry_out(13, 0, {{kBlkBuffer, 16}}) == 0);
    CHECK(host.on_disk(4096, 4096) == std::string(4096, '\0'));
    range(16, 8, 1);
    CHECK(host.carry_out(13, 0, {{kBlkBuffer, 16}}) == 0);
    CHECK(host.on_disk(8192, 4096) == std::string(4096, '\0'));
    range(0, 8, 0);
    CHECK(host.carry_out(11, 0, {{kBlkBuffer, 16}}) == 0);
    CHECK(host.on_disk(4096 * 3, 512) == std::string(512, 'Y'));
    range(0, 8, 2);
    CHECK(host.carry_out(13, 0, {{kBlkBuffer, 16}}) == 2);  // a flag that is not known
    range(kSectors - 1, 2, 0);
    CHECK(host.carry_out(13, 0, {{kBlkBuffer, 16}}) == 1);
    CHECK(host.carry_out(13, 0, {{kBlkBuffer, 32}}) == 2);  // two ranges
    range(0, 0, 0);
    CHECK(host.carry_out(13, 0, {{kBlkBuffer, 16}}) == 0);
}

TEST_CASE("a request that cannot be carried out has a status", "[devices]") {
    BlkHost host;
    host.start(VirtioHost::kVersion1, 1);
    CHECK(host.carry_out(0, kSectors - 1, {{kBlkBuffer, 1024, true}}) == 1);
    CHECK(host.carry_out(0, ~std::uint64_t{0}, {{kBlkBuffer, 512, true}}) == 1);
    CHECK(host.carry_out(0, 0, {{kBlkBuffer, 511, true}}) == 1);
    CHECK(host.carry_out(1, 0, {{kBlkBuffer, 100}}) == 1);
    CHECK(host.carry_out(99, 0, {}) == 2);
    REQUIRE(::truncate(host.path.c_str(), 512) == 0);
    CHECK(host.carry_out(0, 8, {{kBlkBuffer, 512, true}}) == 1);
    CHECK(host.read(kStatus) == 15);
    host.add(0, {{kHeader, 8}, {kStatusAt, 1, true}});
    host.kick(0);
    host.sync();
    CHECK(host.read(kStatus) == (15 | 64));
}

TEST_CASE("a read-only disk is not written", "[devices]") {
    BlkHost host{true};
    host.start(VirtioHost::kVersion1 | std::uint64_t{1} << 5, 1);
    CHECK(host.carry_out(1, 0, {{kBlkBuffer, 512}}) == 1);
    CHECK(host.carry_out(0, 0, {{kBlkBuffer, 512, true}}) == 0);
}

TEST_CASE("a pause drains what has left the queue", "[devices]") {
    BlkHost host;
    host.start(VirtioHost::kVersion1 | kFlush, 1);
    host.set_text(kBlkBuffer, pattern(256 << 10, 'A'));
    for (unsigned i = 0; i < 4; ++i) {
        host.request(1, 512 * i, {{kBlkBuffer, 256 << 10}}, kHeader + 16 * i, kStatusAt + i);
    }
    host.kick(0);
    // Wherever the four are now.
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    const std::uint16_t done = host.used_index(0);
    host.sync();
    CHECK(host.used_index(0) == done);
    host.transport().resume();
    CHECK(host.wait_used(0, 4).size() == 4);
    for (unsigned i = 0; i < 4; ++i) {
        CHECK(host.load<std::uint8_t>(kStatusAt + i) == 0);
    }
}

TEST_CASE("a reset forgets requests, and later ones wait for them", "[devices]") {
    BlkHost host;
    for (int turn = 0; turn < 20; ++turn) {
        host.start(VirtioHost::kVersion1 | kFlush, 1);
        host.set_text(kBlkBuffer, pattern(384 << 10, static_cast<char>('A' + turn)));
        host.request(1, 0, {{kBlkBuffer, 384 << 10}});
        host.kick(0);
    }
    host.wait_used(0, 1);
    CHECK(host.on_disk(0, 384 << 10) == pattern(384 << 10, 'A' + 19));
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    CHECK(host.used_index(0) == 1);
}

TEST_CASE("a queue that was taken away and given again has nothing of before", "[devices]") {
    BlkHost host;
    host.start(VirtioHost::kVersion1 | kFlush, 1);
    for (int turn = 0; turn < 20; ++turn) {
        host.set_text(kBlkBuffer, pattern(384 << 10, static_cast<char>('A' + turn)));
        host.request(1, 0, {{kBlkBuffer, 384 << 10}});
        host.kick(0);
        host.write(kQueueReady, 0);
        CHECK(host.read(kQueueReady) == 0);
        host.make_queue(0);
    }
    host.request(1, 0, {{kBlkBuffer, 384 << 10}});
    host.kick(0);
    host.wait_used(0, 1);
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    CHECK(host.used_index(0) == 1);
    CHECK(host.read(kStatus) == 15);
    CHECK(host.on_disk(0, 384 << 10) == pattern(384 << 10, 'A' + 19));
}

TEST_CASE("a request is no more work than a pause can wait for", "[devices]") {
    using devices::virtio::BlkRequest;
    BlkHost host;
    const auto status = [&](std::uint32_t type, std::uint32_t mib, std::uint32_t sectors) {
        devices::virtio::Chain chain;
        host.store(kHeader, type);
        host.store(kHeader + 8, std::uint64_t{0});
        host.store(kBlkBuffer, std::uint64_t{0});
        host.store(kBlkBuffer + 8, sectors);
        host.store(kBlkBuffer + 12, std::uint32_t{0});
        chain.readable.add({vmm::Gpa{kHeader}, 16});
        for (std::uint32_t i = 0; i < mib; ++i) {
            chain.readable.add({vmm::Gpa{0}, 1 << 20});
        }
        if (sectors != 0) {
            chain.readable.add({vmm::Gpa{kBlkBuffer}, 16});
        }
        chain.writable.add({vmm::Gpa{kStatusAt}, 1});
        auto request =
            devices::virtio::decode_request(host.memory(), std::move(chain), {std::uint64_t{1} << 40, false});
        REQUIRE(request);
        return request->kind == BlkRequest::Kind::failed ? request->status : devices::virtio::kBlkOk;
    };
    CHECK(status(1, 8, 0) == 0);
    CHECK(status(1, 9, 0) == 1);
    CHECK(status(13, 0, devices::virtio::kMaxZeroSectors) == 0);
    CHECK(status(13, 0, devices::virtio::kMaxZeroSectors + 1) == 1);
    CHECK(status(11, 0, devices::virtio::kMaxDiscardSectors) == 0);
    CHECK(status(11, 0, devices::virtio::kMaxDiscardSectors + 1) == 1);
}

TEST_CASE("a driver has no more requests in flight than its queue has entries", "[devices]") {
    BlkHost host;
    host.start(VirtioHost::kVersion1 | kFlush, 1);
    host.store(kHeader, std::uint32_t{4});  // a flush, which takes its time
    // The same descriptors again and again, as if each were a request of its own.
    for (int i = 0; i < 400 && host.read(kStatus) == 15; ++i) {
        host.descriptor(VirtioHost::table(0), kHeader, 16, 1, 1);
        host.descriptor(VirtioHost::table(0) + 16, kStatusAt, 1, 2, 0);
        for (int j = 0; j < VirtioHost::kQueueSize; ++j) {
            host.publish(0, 0);
        }
        host.kick(0);
        host.sync();
    }
    REQUIRE(host.transport().pause(tests::kPauseLimit));
    // Whether the disk was slow enough to show it or not, nothing is left over.
    CHECK((host.read(kStatus) == 15 || host.broken.find("more requests in flight") != std::string::npos));
}

TEST_CASE("one process at a time owns a disk, and one at a time is about to", "[devices]") {
    tests::TempFolder folder;
    const std::string path = folder.file("disk");
    std::ofstream{path}.close();
    std::filesystem::resize_file(path, 512);
    auto source = DiskImage::open({path, false, false});
    REQUIRE(source);
    CHECK(!devices::virtio::examine_disk({path, false, false}));  // before the source has taken it
    const std::string other = folder.file("other");
    std::filesystem::copy_file(path, other);
    CHECK_THAT(devices::virtio::examine_disk({other, false, false}).error().text(),
               Catch::Matchers::Contains("is not the image that the guest uses"));
    REQUIRE((*source)->take());
    CHECK(*devices::virtio::examine_disk({path, false, false}) == 1);
    auto destination = DiskImage::open({path, false, false});
    REQUIRE(destination);
    const auto third = DiskImage::open({path, false, false});
    REQUIRE(!third);
    CHECK(third.error().text() == path + " is in use by another guest, or about to be; end that one first");
    CHECK((*destination)->take().error().code() == vmm::Code::refused);
    REQUIRE((*source)->give());
    REQUIRE((*destination)->take());
    REQUIRE((*destination)->take());
    CHECK(!(*source)->take());
    // And back.
    REQUIRE((*destination)->give());
    REQUIRE((*source)->take());
    destination->reset();
    CHECK(DiskImage::open({path, false, false}));
}

TEST_CASE("readers share a disk", "[devices]") {
    tests::TempFolder folder;
    const std::string path = folder.file("disk");
    std::ofstream{path}.close();
    std::filesystem::resize_file(path, 512);
    auto one = DiskImage::open({path, true, false});
    auto two = DiskImage::open({path, true, false});
    REQUIRE(one);
    REQUIRE(two);
    CHECK((*one)->take());
    CHECK((*two)->take());
    auto writer = DiskImage::open({path, false, false});
    REQUIRE(writer);
    CHECK(!(*writer)->take());
}

TEST_CASE("an image that cannot be a disk is refused with a remedy", "[devices]") {
    tests::TempFolder folder;
    const auto text = [](const DiskConfig& config) { return DiskImage::open(config).error().text(); };
    const std::string path = folder.file("disk");
    CHECK_THAT(text({path, false, false}),
               Catch::Matchers::Contains("No such file") && Catch::Matchers::Contains("truncate(1)"));
    std::ofstream{path} << "some";
    CHECK_THAT(text({path, false, false}), Catch::Matchers::Contains("has 4 bytes"));
    CHECK_THAT(text({folder.file("."), true, false}),
               Catch::Matchers::Contains("neither a file nor a block device"));
    CHECK_THAT(text({"/dev/null", true, false}),
               Catch::Matchers::Contains("neither a file nor a block device"));
}
