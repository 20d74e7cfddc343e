// make_seeds GOLDEN FOLDER: writes what the fuzz targets start from, a folder for each, made by our own
// encoders: frames and states from the recorded streams in GOLDEN, whole migrations as a scripted source
// sends them, the images of the loaders' tests, and the requests of the control socket's clients.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "tests/fuzz/input.hpp"
#include "tests/support/receiver.hpp"
#include "tests/unit/loader/images.hpp"
#include "tools/vmm/control_protocol.hpp"
#include "vmm/base/check.hpp"
#include "vmm/state/encode.hpp"

namespace {

using vmm::Bytes;
namespace fs = std::filesystem;

Bytes read_file(const fs::path& path) {
    std::ifstream file{path, std::ios::binary};
    VERIFY(file.good());
    const std::string text{std::istreambuf_iterator<char>{file}, {}};
    const auto bytes = std::as_bytes(std::span{text});
    return {bytes.begin(), bytes.end()};
}

Bytes bytes_of_text(std::string_view text) {
    const auto bytes = std::as_bytes(std::span{text});
    return {bytes.begin(), bytes.end()};
}

// Small numbers, then bytes: how the targets' inputs begin.
template <std::unsigned_integral... T>
Bytes after(const Bytes& rest, T... numbers) {
    Bytes seed;
    vmm::ByteWriter out{seed};
    (out.put(numbers), ...);
    out.put(rest);
    return seed;
}

class Seeds {
  public:
    explicit Seeds(fs::path folder) : folder_(std::move(folder)) {}

    void add(const char* target, const std::string& name, const Bytes& seed) const {
        fs::create_directories(folder_ / target);
        std::ofstream file{folder_ / target / name, std::ios::binary};
        file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
        VERIFY(file.good());
    }

  private:
    fs::path folder_;
};

// What the source says on one connection.
class RecordingTransport final : public migration::Transport {
  public:
    RecordingTransport(std::unique_ptr<migration::Transport> inner, Bytes& said)
        : inner_(std::move(inner)), said_(said) {}
    vmm::Result<void> send(std::span<const iovec> parts, const migration::Deadline& deadline) override {
        for (const iovec& part : parts) {
            const auto* data = static_cast<const std::byte*>(part.iov_base);
            said_.insert(said_.end(), data, data + part.iov_len);
        }
        return inner_->send(parts, deadline);
    }
    vmm::Result<void> receive(std::span<const iovec> parts, const migration::Deadline& deadline) override {
        return inner_->receive(parts, deadline);
    }
    void shutdown() override { inner_->shutdown(); }
    void abort() override { inner_->abort(); }
    std::string peer() const override { return inner_->peer(); }

  private:
    std::unique_ptr<migration::Transport> inner_;
    Bytes& said_;
};

class RecordingConnector final : public migration::Connector {
  public:
    explicit RecordingConnector(tests::Receiver& receiver) : receiver_(receiver) {}
    vmm::Result<std::unique_ptr<migration::Transport>> connect(const migration::Deadline& deadline) override {
        auto transport = TRY(receiver_.connect(deadline));
        said.push_back(std::make_unique<Bytes>());
        return std::unique_ptr<migration::Transport>{
            std::make_unique<RecordingTransport>(std::move(transport), *said.back())};
    }
    std::string address() const override { return receiver_.address(); }

    std::vector<std::unique_ptr<Bytes>> said;

  private:
    tests::Receiver& receiver_;
};

// Where a connection of the first attempt breaks.
struct Break {
    std::size_t connection;
    std::uint64_t byte;
};

// What a connection brought, without its Hello where that is read by whoever routes it.
Bytes brought(const RecordingConnector& connector, std::size_t connection, bool with_hello = false) {
    Bytes said = connection < connector.said.size() ? *connector.said[connection] : Bytes{};
    const std::size_t hello =
        with_hello ? 0 : migration::encode_frame(migration::Hello{{migration::kProtocolVersion}}).size();
    said.erase(said.begin(), said.begin() + static_cast<std::ptrdiff_t>(std::min(hello, said.size())));
    return said;
}

// An input of the destination's target: one migration, with a link that breaks and comes back, or whole.
Bytes record_migration(std::uint16_t streams, bool verify_full, bool paused,
                       const std::optional<Break>& broken = std::nullopt) {
    tests::Bed bed;
    for (const std::uint64_t page : {1U, 2U, 5U, 9U}) {
        tests::fill_page(bed.source.memory(), page, 3);
    }
    bed.source.user_paused = paused;
    // Written while it is copied, and in the pause.
    bed.source.on_pause = [&] { bed.source.guest_writes(5, 7); };
    RecordingConnector connector{bed.receiver};
    migration::SourceOptions options;
    options.streams = streams;
    options.verify_full = verify_full;
    if (broken) {
        options.retry = std::chrono::seconds{20};
        bed.receiver.faults.resize(broken->connection + 1);
        bed.receiver.faults.back() = {tests::Fault::Kind::cut, tests::Fault::Direction::send, broken->byte};
    }
    migration::Source engine{{bed.source, connector, bed.source_records, vmm::real_clock(), bed.events, {}},
                             options};
    VERIFY(engine.run() == migration::Outcome::completed);
    bed.receiver.join();
    const std::size_t connections = std::size_t{1} + streams;
    const std::size_t attempts = broken ? 2 : 1;
    VERIFY(connector.said.size() >= attempts * connections);
    if (broken) {
        connector.said[broken->connection]->resize(broken->byte);
    }
    Bytes seed;
    vmm::ByteWriter out{seed};
    out.put(static_cast<std::uint8_t>(broken ? 8 : 0));
    out.put(std::uint8_t{0});
    if (broken) {
        out.put(std::uint8_t{0});
    }
    for (std::size_t attempt = 0; attempt < attempts; ++attempt) {
        const std::size_t first = attempt * connections;
        const Bytes control = brought(connector, first, attempt == 0);
        const Bytes one = streams > 0 ? brought(connector, first + 1) : Bytes{};
        const Bytes other = streams > 1 ? brought(connector, first + 2) : Bytes{};
        out.put(static_cast<std::uint32_t>(one.size()));
        out.put(static_cast<std::uint32_t>(other.size()));
        if (attempt + 1 < attempts) {
            out.put(static_cast<std::uint32_t>(control.size()));
        }
        out.put(one);
        out.put(other);
        out.put(control);
    }
    return seed;
}

void add_messages(const Seeds& seeds, const fs::path& golden) {
    Bytes stream = read_file(golden / "migration-messages-v3.bin");
    unsigned number = 0;
    fuzz::for_each_frame(stream, [&](const fuzz::Frame& frame) {
        const std::string name = fmt::format("message-{}", number);
        const Bytes body{frame.body.begin(), frame.body.end()};
        Bytes whole{frame.header.begin(), frame.header.end()};
        whole.insert(whole.end(), body.begin(), body.end());
        seeds.add("message", name, after(body, static_cast<std::uint8_t>(number)));
        seeds.add("frame", name, after(whole, std::uint16_t{0xffff}));
        seeds.add("frame_reader", name, after(whole, static_cast<std::uint8_t>(number)));
        ++number;
    });
    seeds.add("frame", "all", after(stream, std::uint16_t{0xffff}));
}

void add_states(const Seeds& seeds, const fs::path& golden) {
    // In the order of device_restore's list.
    constexpr std::array kDevices{"serial-16550", "rtc-cmos",       "exit-port",  "reset-port", "acpi-power",
                                  "virtio-net",   "virtio-console", "virtio-rng", "virtio-blk"};
    for (std::size_t i = 0; i < kDevices.size(); ++i) {
        const Bytes state = read_file(golden / fmt::format("{}-v1.bin", kDevices[i]));
        seeds.add("device_restore", kDevices[i], after(state, static_cast<std::uint8_t>(i)));
    }
    for (const fs::directory_entry& entry : fs::directory_iterator{golden}) {
        seeds.add("snapshot_decode", entry.path().stem(), read_file(entry.path()));
    }
}

void add_images(const Seeds& seeds) {
    const std::pair<const char*, Bytes> files[] = {{"pvh", tests::pvh_image()},
                                                   {"multiboot_elf", tests::multiboot_elf()},
                                                   {"multiboot_addresses", tests::multiboot_addresses()},
                                                   {"linux", tests::linux_image()},
                                                   {"flat", Bytes(512, std::byte{0xf4})}};
    for (const auto& [name, file] : files) {
        for (const std::uint8_t machine : {std::uint8_t{1}, std::uint8_t{2}}) {
            Bytes with_line = bytes_of_text("console=ttyS0");
            const auto line_bytes = static_cast<std::uint8_t>(with_line.size());
            with_line.insert(with_line.end(), file.begin(), file.end());
            const auto initrd_bytes = static_cast<std::uint16_t>(machine == 1 ? 0 : 5000);
            seeds.add("loaders", fmt::format("{}-{}", name, machine),
                      after(with_line, machine, line_bytes, initrd_bytes));
        }
    }
    vmm::BootImage image;
    image.entry = 0x100000;
    image.segments = {{0x100000, Bytes(16, std::byte{0x90}), 0x3000}, {0xe0000, Bytes(40), 0}};
    seeds.add("boot_image", "two_segments", vmm::encode(image));
    image.mode = vmm::EntryMode::long64;
    seeds.add("boot_image", "long64", vmm::encode(image));
}

void add_requests(const Seeds& seeds) {
    tools::MigrateRequest migrate;
    migrate.to = {"127.0.0.1", "7000"};
    migrate.options.timeout = std::chrono::seconds{5};
    migrate.options.max_bandwidth = 1 << 20;
    std::string all = tools::line_of(tools::to_json(migrate)) + "\n";
    for (const char* command : {"status", "pause", "resume", "stop", "events", "cancel"}) {
        all += fmt::format("{{\"command\":\"{}\",\"id\":{}}}\n", command, all.size());
    }
    all += "{\"command\":\"preflight\",\"to\":\"tcp:[::1]:7000\",\"id\":\"x\"}\n";
    all += "{\"command\":\"resolve\",\"resolution\":\"discard\"}\n";
    for (const std::uint8_t piece : {std::uint8_t{1}, std::uint8_t{255}}) {
        seeds.add("control_json", fmt::format("requests-{}", piece),
                  after(bytes_of_text(all), piece, std::uint8_t{20}));
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: make_seeds GOLDEN FOLDER\n";
        return 2;
    }
    const fs::path golden = argv[1];
    const Seeds seeds{argv[2]};
    add_messages(seeds, golden);
    add_states(seeds, golden);
    seeds.add("virtio_queue", "start", Bytes(512));
    add_images(seeds);
    add_requests(seeds);
    seeds.add("destination", "control_only", record_migration(0, false, false));
    seeds.add("destination", "control_only_full", record_migration(0, true, true));
    seeds.add("destination", "two_streams", record_migration(2, false, false));
    // In a page of round 0, and in the pause behind the digest.
    seeds.add("destination", "resumed_in_copy", record_migration(0, false, false, Break{0, 12'000}));
    seeds.add("destination", "resumed_streams", record_migration(2, false, false, Break{1, 12'000}));
}
