// Page table, page sender and page receiver, each alone.
#include <catch2/catch.hpp>
#include <random>

#include "migration/copier.hpp"
#include "migration/page_receiver.hpp"
#include "tests/support/memory_transport.hpp"
#include "tests/support/scripted_vm.hpp"

using namespace migration;
using namespace tests;
using vmm::kPageSize;

namespace {

constexpr Secret kSecret{1, 2, 3};

class Unhindered final : public CopyMonitor {
  public:
    vmm::Result<void> after_frame(std::size_t, std::size_t) override { return {}; }
};

// A receiver that is shown one Pages message.
struct Placing {
    vmm::GuestMemory memory = make_memory(2 * kChunkPages);
    PageTable table = std::move(*PageTable::create(2 * kChunkPages, kSecret));
    PageReceiver receiver;

    explicit Placing(std::uint16_t stream = 0, std::uint16_t streams = 1)
        : receiver(stream, streams, memory, table) {}

    vmm::Result<void> place(const Pages& pages, const vmm::Bytes& payload) {
        auto [ours, theirs] = make_memory_transports();
        const iovec part = part_of(payload);
        REQUIRE(ours->send({&part, 1}, {}));
        MessageStream stream{std::move(theirs)};
        return receiver.place(pages, payload.size(), stream);
    }
};

// Places what the peer sends up to the end of its round.
void place_round(MessageStream& peer, PageReceiver& receiver) {
    for (;;) {
        auto incoming = peer.receive(std::size_t{2} << 20);
        REQUIRE(incoming);
        if (std::holds_alternative<RoundEnd>(incoming->message)) {
            return;
        }
        REQUIRE(receiver.place(std::get<Pages>(incoming->message), incoming->payload_bytes, peer));
    }
}

vmm::Bytes page_of(std::uint8_t value) {
    return vmm::Bytes(kPageSize, std::byte{value});
}

}  // namespace

TEST_CASE("digest: independent of order, dependent on position, kept up to date", "[migration]") {
    const PageHasher hasher{kSecret};
    const Digest a = hasher.hash(page_of(1));
    const Digest b = hasher.hash(page_of(2));
    const auto table = [&](std::initializer_list<std::pair<std::uint64_t, Digest>> entries) {
        auto made = PageTable::create(100, kSecret);
        REQUIRE(made);
        Digest part;
        for (const auto& [page, hash] : entries) {
            made->set(page, hash, part);
        }
        CHECK(part == made->digest());
        return part;
    };
    CHECK(table({{3, a}, {9, b}}) == table({{9, b}, {3, a}}));
    CHECK(!(table({{3, a}, {9, b}}) == table({{3, b}, {9, a}})));
    CHECK(table({{3, a}, {3, b}, {3, a}}) == table({{3, a}}));
    CHECK(table({{3, a}, {3, Digest{}}}) == Digest{});
    CHECK(!(hasher.hash(page_of(1)) == PageHasher{Secret{9}}.hash(page_of(1))));
}

TEST_CASE("128-bit sums carry and borrow", "[migration]") {
    CHECK(add({UINT64_MAX, 1}, {1, 0}) == Digest{0, 2});
    CHECK(subtract({0, 2}, {1, 0}) == Digest{UINT64_MAX, 1});
    CHECK(subtract(add({5, 6}, {UINT64_MAX, UINT64_MAX}), {UINT64_MAX, UINT64_MAX}) == Digest{5, 6});
}

TEST_CASE("is_zero sees every byte", "[migration]") {
    vmm::Bytes page(kPageSize);
    CHECK(is_zero(page));
    for (std::size_t byte = 0; byte < kPageSize; ++byte) {
        page[byte] = std::byte{1};
        REQUIRE(!is_zero(page));
        page[byte] = std::byte{0};
    }
}

TEST_CASE("chunks cover RAM once, and have one stream each", "[migration]") {
    const std::vector<vmm::RegionConfig> regions{{vmm::Gpa{0}, (kChunkPages + 10) * kPageSize},
                                                 {vmm::Gpa{3 * kChunkPages * kPageSize}, 64 * kPageSize}};
    auto memory = vmm::GuestMemory::create(regions, vmm::Backing::small);
    REQUIRE(memory);
    std::vector<std::pair<std::uint64_t, vmm::PageRange>> seen;
    for_each_chunk(*memory,
                   [&](std::uint64_t chunk, vmm::PageRange range) { seen.emplace_back(chunk, range); });
    CHECK(seen == std::vector<std::pair<std::uint64_t, vmm::PageRange>>{
                      {0, {0, kChunkPages}}, {1, {kChunkPages, 10}}, {3, {3 * kChunkPages, 64}}});
    CHECK(stream_of_chunk(7, 3) == 1);
    CHECK(stream_of_chunk(7, 0) == 0);
}

TEST_CASE("receiver: data and zero pages land, and the table knows", "[migration]") {
    Placing rig;
    vmm::Bytes payload = page_of(1);
    payload.insert(payload.end(), kPageSize, std::byte{2});
    REQUIRE(rig.place({0, {{ExtentKind::data, 5, 2}}}, payload));
    CHECK((*rig.memory.pages({6, 1}))[100] == std::byte{2});
    CHECK(rig.table.entry(5) == rig.table.hasher().hash(page_of(1)));
    // A zero extent over a page already placed really zeroes it.
    REQUIRE(rig.place({1, {{ExtentKind::zero, 4, 3}}}, {}));
    CHECK(is_zero(*rig.memory.pages({4, 3})));
    CHECK(rig.table.digest() == Digest{});
    CHECK(rig.receiver.digest_part() == Digest{});
}

TEST_CASE("receiver: nothing lands outside of RAM, of its stream, or of its payload", "[migration]") {
    struct Row {
        const char* name;
        Extent extent;
        std::size_t payload_pages;
    };
    const std::vector<Row> rows{
        {"past the end", {ExtentKind::data, 2 * kChunkPages, 1}, 1},
        {"across the end", {ExtentKind::data, 2 * kChunkPages - 1, 2}, 2},
        {"far away", {ExtentKind::data, UINT64_MAX, 1}, 1},
        {"wrapping", {ExtentKind::data, UINT64_MAX - 1, 4}, 4},
        {"huge zero extent", {ExtentKind::zero, 0, UINT32_MAX}, 0},
        {"across a chunk", {ExtentKind::data, kChunkPages - 1, 2}, 2},
        {"of another stream", {ExtentKind::data, kChunkPages, 1}, 1},
        {"payload too short", {ExtentKind::data, 1, 2}, 1},
        {"payload too long", {ExtentKind::data, 1, 1}, 2},
        {"payload of a zero extent", {ExtentKind::zero, 1, 1}, 1},
    };
    for (const Row& row : rows) {
        INFO(row.name);
        Placing rig{0, 2};
        CHECK(!rig.place({0, {row.extent}}, vmm::Bytes(row.payload_pages * kPageSize, std::byte{1})));
        CHECK(rig.table.digest() == Digest{});
        CHECK(is_zero(*rig.memory.pages({0, kChunkPages})));
    }
}

TEST_CASE("sender: a page's debt ends only when it was sent and its hash is known", "[migration]") {
    vmm::GuestMemory memory = make_memory(64);
    ScriptedLog log{64};
    fill_page(memory, 10, 1);
    auto [ours, theirs] = make_memory_transports();
    // The first frame with pages is cut in its middle.
    ByteFault cut{{Fault::Kind::cut, Fault::Direction::send, 1000}};
    MessageStream stream{std::make_unique<FaultyTransport>(std::move(ours), cut)};
    Unhindered monitor;
    auto population = vmm::PopulationScan::create();
    auto table = PageTable::create(64, kSecret);
    REQUIRE((population && table));
    auto made = PageSender::create(0, stream, memory, *population, *table, monitor);
    REQUIRE(made);
    PageSender& sender = **made;
    vmm::Bitmap owed{64};
    owed.set_range(0, 64);
    const Pass pass{0, GuestState::running, false, {}};
    REQUIRE(sender.send(pass, {0, 64}, log, owed));
    CHECK(!sender.end_round(pass, owed));
    CHECK(owed.test(10));
    CHECK(owed.count() == 1);  // the unpopulated ones need not be sent
    CHECK(table->entry(10) == Digest{});
}

TEST_CASE("sender: unpopulated, zero and unchanged pages cost no payload", "[migration]") {
    vmm::GuestMemory memory = make_memory(64);
    ScriptedLog log{64};
    auto [ours, theirs] = make_memory_transports();
    MessageStream stream{std::move(ours)};
    MessageStream peer{std::move(theirs)};
    Unhindered monitor;
    auto population = vmm::PopulationScan::create();
    auto table = PageTable::create(64, kSecret);
    REQUIRE((population && table));
    auto made = PageSender::create(0, stream, memory, *population, *table, monitor);
    REQUIRE(made);
    PageSender& sender = **made;
    vmm::Bitmap owed{64};
    const auto round = [&](std::uint32_t number, std::initializer_list<std::uint64_t> pages) {
        for (const std::uint64_t page : pages) {
            owed.set(page);
        }
        const Pass pass{number, GuestState::running, false, {}};
        REQUIRE(sender.send(pass, {0, 64}, log, owed));
        REQUIRE(sender.end_round(pass, owed));
        CHECK(owed.count() == 0);
        return sender.take_counts();
    };
    fill_page(memory, 1, 1);
    fill_page(memory, 2, 1);
    Round counts = round(0, {0, 1, 2, 3});
    CHECK(counts.data_pages == 2);
    CHECK(counts.zero_pages == 0);  // never sent: the destination's memory is fresh
    std::fill_n(memory.pages({1, 1})->begin(), kPageSize, std::byte{0});
    counts = round(1, {1, 2});
    CHECK(counts.data_pages == 1);  // whatever round 0 sent and was written since
    CHECK(counts.zero_pages == 1);
    CHECK(counts.unchanged_pages == 0);
    // Dropped by a balloon, say: it reads as zero and must be zero there too.
    fill_page(memory, 1, 3);
    counts = round(2, {1, 2});
    CHECK(counts.data_pages == 1);
    CHECK(counts.unchanged_pages == 1);
    REQUIRE(memory.discard({1, 1}));
    counts = round(3, {1});
    CHECK(counts.zero_pages == 1);
}

TEST_CASE("sender: a page written after its hash was taken is sent again, even if it was written back",
          "[migration]") {
    // A guest that writes page 5 while it is sent, and then what it held before.
    class Meddling final : public Transport {
      public:
        Meddling(std::unique_ptr<Transport> inner, vmm::GuestMemory& memory)
            : inner_(std::move(inner)), memory_(memory) {}
        vmm::Result<void> send(std::span<const iovec> parts, const Deadline& deadline) override {
            fill_page(memory_, 5, 2);
            auto sent = inner_->send(parts, deadline);
            fill_page(memory_, 5, 1);
            return sent;
        }
        vmm::Result<void> receive(std::span<const iovec> parts, const Deadline& deadline) override {
            return inner_->receive(parts, deadline);
        }
        void shutdown() override { inner_->shutdown(); }
        void abort() override { inner_->abort(); }
        std::string peer() const override { return inner_->peer(); }

      private:
        std::unique_ptr<Transport> inner_;
        vmm::GuestMemory& memory_;
    };

    vmm::GuestMemory source = make_memory(64);
    vmm::GuestMemory target = make_memory(64);
    auto sent = PageTable::create(64, kSecret);
    auto placed = PageTable::create(64, kSecret);
    auto population = vmm::PopulationScan::create();
    REQUIRE((sent && placed && population));
    auto [ours, theirs] = make_memory_transports();
    MessageStream stream{std::make_unique<Meddling>(std::move(ours), source)};
    MessageStream peer{std::move(theirs)};
    Unhindered monitor;
    auto made = PageSender::create(0, stream, source, *population, *sent, monitor);
    REQUIRE(made);
    PageSender& sender = **made;
    PageReceiver receiver{0, 1, target, *placed};
    ScriptedLog log{64};
    fill_page(source, 5, 1);
    for (std::uint32_t number = 0; number < 3; ++number) {
        // It was written each time, as the log would say.
        vmm::Bitmap owed{64};
        owed.set(5);
        const Pass pass{number, GuestState::running, false, {}};
        REQUIRE(sender.send(pass, {0, 64}, log, owed));
        REQUIRE(sender.end_round(pass, owed));
        place_round(peer, receiver);
    }
    CHECK(!first_difference(source, target));
    CHECK(sender.digest_part() == receiver.digest_part());
}

TEST_CASE("a transfer of random pages in both directions of every count ends equal", "[migration]") {
    std::mt19937_64 random{7};
    for (int run = 0; run < 20; ++run) {
        const std::uint64_t pages = 1 + random() % (2 * kChunkPages);
        vmm::GuestMemory source = make_memory(pages);
        vmm::GuestMemory target = make_memory(pages);
        auto sent = PageTable::create(pages, kSecret);
        auto placed = PageTable::create(pages, kSecret);
        REQUIRE((sent && placed));
        auto [ours, theirs] = make_memory_transports();
        MessageStream stream{std::move(ours)};
        MessageStream peer{std::move(theirs)};
        Unhindered monitor;
        auto population = vmm::PopulationScan::create();
        REQUIRE(population);
        auto made = PageSender::create(0, stream, source, *population, *sent, monitor);
        REQUIRE(made);
        PageSender& sender = **made;
        PageReceiver receiver{0, 1, target, *placed};
        ScriptedLog log{pages};
        vmm::Bitmap owed{pages};
        owed.set_range(0, pages);
        for (std::uint64_t i = random() % 400; i > 0; --i) {
            fill_page(source, random() % pages, static_cast<std::uint8_t>(random()));
        }
        const auto guest = run % 2 == 0 ? GuestState::running : GuestState::paused;
        const Pass pass{0, guest, true, {}};
        for_each_chunk(source, [&](std::uint64_t, vmm::PageRange range) {
            REQUIRE(sender.send(pass, range, log, owed));
        });
        REQUIRE(sender.end_round(pass, owed));
        place_round(peer, receiver);
        CHECK(owed.count() == 0);
        CHECK(!first_difference(source, target));
        CHECK(sender.digest_part() == receiver.digest_part());
        CHECK(sent->digest() == placed->digest());
    }
}
