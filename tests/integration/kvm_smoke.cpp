// vmm/kvm and vmm/machine on the real KVM of this host. The guests are a few bytes of machine code each.
#define CATCH_CONFIG_RUNNER
#include <sched.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "tests/unit/loader/images.hpp"
#include "vmm/machine/lifecycle.hpp"
#include "vmm/machine/loader.hpp"
#include "vmm/machine/vcpu_team.hpp"
#include "vmm/state/describe.hpp"

using Reason = vmm::GuestEnd::Reason;
using vmm::Gpa;

namespace {

constexpr vmm::Duration kLimit = std::chrono::seconds{60};  // for devices to come to rest
constexpr std::uint64_t kEntry = 0x7c00;
constexpr std::uint64_t kRam = 16 << 20;

// The value, or the test ends with the error's text.
template <typename T>
T must(vmm::Result<T> result) {
    if (!result) {
        FAIL(result.error().text());
    }
    return std::move(*result);
}

// Port 0x50: text. 0x51: "done". 0x64: reset. 0xf4: exit.
class Ports final : public vmm::BusDevice {
  public:
    explicit Ports(vmm::MachineControl& control) : control_(control) {}

    void read(std::uint64_t, std::span<std::byte> data) override {
        std::fill(data.begin(), data.end(), std::byte{0x7e});
    }
    void write(std::uint64_t port, std::span<const std::byte> data) override {
        const auto value = static_cast<std::uint8_t>(data[0]);
        if (port == 0x50) {
            const std::lock_guard lock{mutex_};
            text_ += static_cast<char>(value);
        } else if (port == 0x51) {
            done = true;
        } else if (port == 0x64) {
            control_.reset();
        } else if (port == 0xf4) {
            control_.exit(value);
        }
    }
    std::string text() {
        const std::lock_guard lock{mutex_};
        return text_;
    }

    std::atomic<bool> done = false;

  private:
    vmm::MachineControl& control_;
    std::mutex mutex_;
    std::string text_;
};

vmm::Bytes bytes_of(const std::vector<int>& code) {
    vmm::Bytes bytes;
    for (const int byte : code) {
        bytes.push_back(static_cast<std::byte>(byte));
    }
    return bytes;
}

vmm::BootImage image_of(const std::vector<int>& code, vmm::EntryMode mode) {
    vmm::BootImage image;
    image.mode = mode;
    image.entry = kEntry;
    image.segments.push_back({kEntry, bytes_of(code), 0});
    return image;
}

// As a loader makes it of `file`; the reset register is Ports' own.
vmm::BootImage loaded(const vmm::Bytes& file) {
    const std::vector<vmm::RegionConfig> memory = vmm::pc_memory_map(kRam);
    vmm::BootOptions options;
    options.memory = memory;
    options.platform.power.reset = 0x64;
    return must(vmm::load_image(file, std::move(options)));
}

struct Guest {
    explicit Guest(const std::vector<int>& code, vmm::EntryMode mode = vmm::EntryMode::real16,
                   std::uint32_t vcpus = 1)
        : Guest(image_of(code, mode), vcpus) {}
    explicit Guest(vmm::BootImage image, std::uint32_t vcpus = 1) : kvm(must(vmm::Kvm::open())) {
        vmm::MachineConfig config;
        config.name = "smoke";
        config.ram_bytes = kRam;
        config.vcpus = vcpus;
        machine = must(vmm::Machine::create(kvm, config));
        ports.emplace(machine->control());
        REQUIRE(machine->ports().insert(0, 0x100, *ports));
        machine->set_boot_image(std::move(image));
        lifecycle = must(vmm::Lifecycle::create(*machine));
    }
    void start() {
        REQUIRE(lifecycle->boot());
        REQUIRE(lifecycle->resume());
    }
    std::uint16_t word(std::uint64_t gpa) const {
        return machine->memory().load<std::uint16_t>(Gpa{gpa}).value();
    }

    vmm::Kvm kvm;
    std::unique_ptr<vmm::Machine> machine;
    std::optional<Ports> ports;
    std::unique_ptr<vmm::Lifecycle> lifecycle;
};

template <typename Condition>
bool eventually(Condition condition) {
    for (int i = 0; i < 10'000 && !condition(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    return condition();
}

// inc word [0x500]; jmp to it
const std::vector<int> kCounter{0xff, 0x06, 0x00, 0x05, 0xeb, 0xfa};
constexpr std::uint64_t kCount = 0x500;

struct Parsed {
    vmm::RunFlags flags;
    std::vector<vmm::VcpuState> vcpus;
    vmm::IrqchipState irqchips;
};

Parsed parse(const vmm::Bytes& snapshot, std::uint32_t vcpus) {
    auto reader = vmm::SnapshotReader::parse(snapshot).value();
    Parsed parsed;
    parsed.flags = reader.take<vmm::RunFlags>(0).value();
    for (std::uint32_t i = 0; i < vcpus; ++i) {
        parsed.vcpus.push_back(reader.take<vmm::VcpuState>(i).value());
        vmm::normalise_for_comparison(parsed.vcpus.back());
    }
    parsed.irqchips = reader.take<vmm::IrqchipState>(0).value();
    vmm::normalise_for_comparison(parsed.irqchips);
    return parsed;
}

}  // namespace

TEST_CASE("a real-mode guest talks through ports, strings included, and exits") {
    // mov si,0x7c18; mov cx,4; mov dx,0x50; cld; rep outsb; in al,0x30; out 0x50,al; mov al,0x10; out
    // 0xf4,al; out 0x50,al
    Guest guest{{0xbe, 0x18, 0x7c, 0xb9, 0x04, 0x00, 0xba, 0x50, 0x00, 0xfc, 0xf3, 0x6e, 0xe4, 0x30,
                 0xe6, 0x50, 0xb0, 0x10, 0xe6, 0xf4, 0xe6, 0x50, 0xf4, 0x90, 'a',  'b',  'c',  'd'}};
    guest.start();
    const vmm::GuestEnd end = guest.lifecycle->wait_end();
    INFO(end.text);
    CHECK(end.reason == Reason::exit_port);
    CHECK(end.value == 0x10);
    CHECK(guest.ports->text() == "abcd~");  // nothing after the exit
}

TEST_CASE("a paused guest stands still, a resumed one goes on") {
    Guest guest{kCounter};
    guest.start();
    for (int i = 0; i < 50; ++i) {
        const std::uint16_t before = guest.word(kCount);
        REQUIRE(eventually([&] { return guest.word(kCount) != before; }));
        REQUIRE(guest.lifecycle->pause());
        const std::uint16_t paused = guest.word(kCount);
        if (i % 10 == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds{5});
        }
        REQUIRE(guest.word(kCount) == paused);
        REQUIRE(guest.lifecycle->resume());
    }
    guest.lifecycle->stop();
    CHECK(guest.lifecycle->end()->reason == Reason::stopped);
}

TEST_CASE("save, restore into a second VM, save: the same but for the named list, and it goes on") {
    constexpr std::uint32_t kVcpus = 2;
    Guest source{kCounter, vmm::EntryMode::real16, kVcpus};
    source.start();
    REQUIRE(eventually([&] { return source.word(kCount) > 10; }));
    REQUIRE(source.lifecycle->begin_handover(kLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);

    Guest destination{kCounter, vmm::EntryMode::real16, kVcpus};
    REQUIRE(destination.lifecycle->rehearse());
    const vmm::PageRange all{0, kRam / 4096};
    const auto from = *source.machine->memory().pages(all);
    std::copy(from.begin(), from.end(), destination.machine->memory().pages(all)->begin());
    const auto restored = destination.lifecycle->restore(*snapshot);
    INFO((restored ? "" : restored.error().text()));
    REQUIRE(restored);

    REQUIRE(destination.lifecycle->begin_handover(kLimit));
    const auto again = destination.lifecycle->save();
    REQUIRE(again);
    const Parsed first = parse(*snapshot, kVcpus);
    const Parsed second = parse(*again, kVcpus);
    for (std::uint32_t i = 0; i < kVcpus; ++i) {
        CHECK(vmm::first_difference(first.vcpus[i], second.vcpus[i]) == "");
    }
    CHECK(vmm::first_difference(first.irqchips, second.irqchips) == "");
    CHECK(first.vcpus[0].regs.rip >= kEntry);
    CHECK(first.vcpus[0].regs.rip < kEntry + kCounter.size());

    const std::uint16_t count = source.word(kCount);
    CHECK(destination.word(kCount) == count);
    REQUIRE(destination.lifecycle->cancel_handover());
    CHECK(eventually([&] { return destination.word(kCount) != count; }));
    source.lifecycle->finish_handover();
    CHECK(source.word(kCount) == count);
}

TEST_CASE("clocks never go backwards in a move") {
    Guest source{kCounter};
    source.start();
    REQUIRE(source.lifecycle->begin_handover(kLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    const auto clock_of = [](const vmm::Bytes& bytes) {
        return vmm::SnapshotReader::parse(bytes).value().take<vmm::ClockState>(0).value();
    };
    const auto tsc_of = [](const vmm::Bytes& bytes) {
        return vmm::SnapshotReader::parse(bytes).value().take<vmm::VcpuState>(0).value().tsc;
    };
    Guest destination{kCounter};
    REQUIRE(destination.lifecycle->restore(*snapshot));
    REQUIRE(destination.lifecycle->begin_handover(kLimit));
    const auto again = destination.lifecycle->save();
    REQUIRE(again);
    const auto passed_ns =
        static_cast<double>(clock_of(*again).kvmclock_ns - clock_of(*snapshot).kvmclock_ns);
    const auto real_ns = static_cast<double>(clock_of(*again).realtime_ns - clock_of(*snapshot).realtime_ns);
    const double ticks = static_cast<double>(tsc_of(*again) - tsc_of(*snapshot));
    const double ticks_ns = ticks * 1e6 / source.machine->config().tsc_khz;
    CHECK(passed_ns > 0);
    CHECK(passed_ns == Approx(real_ns).margin(1e6));
    CHECK(ticks_ns == Approx(passed_ns).margin(1e6));
}

TEST_CASE("vCPUs that waited awake for their start may use all CPUs afterwards") {
    Guest source{kCounter};
    source.start();
    REQUIRE(source.lifecycle->begin_handover(kLimit));
    const auto snapshot = source.lifecycle->save();
    REQUIRE(snapshot);
    cpu_set_t ours;
    REQUIRE(::sched_getaffinity(0, sizeof ours, &ours) == 0);
    Guest destination{kCounter};
    REQUIRE(destination.lifecycle->restore(*snapshot));
    REQUIRE(destination.lifecycle->start());
    int vcpus = 0;
    for (const auto& task : std::filesystem::directory_iterator{"/proc/self/task"}) {
        std::string name;
        std::ifstream{task.path() / "comm"} >> name;
        cpu_set_t theirs;
        if (name == "vcpu0") {
            ++vcpus;
            REQUIRE(::sched_getaffinity(std::stoi(task.path().filename()), sizeof theirs, &theirs) == 0);
            CHECK(CPU_EQUAL(&ours, &theirs));
        }
    }
    CHECK(vcpus == 2);
}

TEST_CASE("the dirty log is exact") {
    // Writes a byte to every second page from 0x10000 to 0x1f000, then reports and loops.
    // mov ax,0x1000; mov ds,ax; L: mov byte [0],0x5a; mov ax,ds; add ax,0x200; mov ds,ax; cmp ax,0x2000; jne
    // L; out 0x51,al; jmp self
    Guest guest{{0xb8, 0x00, 0x10, 0x8e, 0xd8, 0xc6, 0x06, 0x00, 0x00, 0x5a, 0x8c, 0xd8, 0x05,
                 0x00, 0x02, 0x8e, 0xd8, 0x3d, 0x00, 0x20, 0x75, 0xef, 0xe6, 0x51, 0xeb, 0xfe}};
    REQUIRE(guest.lifecycle->boot());
    vmm::DirtyTracker& tracker = guest.machine->tracker();
    const std::uint64_t pages = guest.machine->memory().page_limit();
    REQUIRE(tracker.start());
    vmm::Bitmap all{pages};
    REQUIRE(tracker.collect(all));
    for (std::uint64_t first = 0; first < pages; first += 1024) {
        REQUIRE(tracker.rearm({first, 1024}));
    }
    REQUIRE(guest.lifecycle->resume());
    REQUIRE(eventually([&] { return guest.ports->done.load(); }));
    REQUIRE(guest.lifecycle->pause());
    REQUIRE(guest.machine->memory().store(Gpa{0x300000}, std::uint32_t{1}));  // a device

    vmm::Bitmap dirty{pages};
    REQUIRE(tracker.collect(dirty));
    vmm::Bitmap expected{pages};
    for (std::uint64_t page = 0x10; page < 0x20; page += 2) {
        expected.set(page);
    }
    expected.set(0x300);
    for (std::uint64_t page = 0; page < pages; ++page) {
        if (page == kEntry / 4096) {
            continue;  // the code: KVM may count a page that is read for the first time, because it maps it
                       // writable
        }
        INFO("page " << page);
        REQUIRE(dirty.test(page) == expected.test(page));
    }
    REQUIRE(tracker.rearm({0, pages}));
    vmm::Bitmap nothing{pages};
    REQUIRE(tracker.collect(nothing));
    CHECK(nothing.count() == 0);
    REQUIRE(tracker.stop());
}

TEST_CASE("a guest that writes all the time is never missed") {
    Guest guest{kCounter};
    guest.start();
    vmm::DirtyTracker& tracker = guest.machine->tracker();
    const std::uint64_t pages = guest.machine->memory().page_limit();
    REQUIRE(tracker.start());
    vmm::Bitmap dirty{pages};
    REQUIRE(tracker.collect(dirty));
    for (int round = 0; round < 200; ++round) {
        REQUIRE(tracker.rearm({0, pages}));
        const std::uint16_t seen = guest.word(kCount);
        REQUIRE(eventually([&] { return guest.word(kCount) != seen; }));
        vmm::Bitmap next{pages};
        REQUIRE(tracker.collect(next));
        REQUIRE(next.test(0));
    }
    REQUIRE(tracker.stop());
}

TEST_CASE("a reset starts the guest again from its boot image") {
    // inc byte [0x600]; cmp byte [0x600],3; je E; out 0x64,al; jmp self; E: mov al,0x10; out 0xf4,al
    Guest guest{{0xfe, 0x06, 0x00, 0x06, 0x80, 0x3e, 0x00, 0x06, 0x03, 0x74, 0x04, 0xe6, 0x64, 0xeb, 0xfe,
                 0xb0, 0x10, 0xe6, 0xf4}};
    guest.start();
    const vmm::GuestEnd end = guest.lifecycle->wait_end();
    INFO(end.text);
    CHECK(end.reason == Reason::exit_port);
    CHECK(guest.lifecycle->resets() == 2);
    CHECK((guest.word(0x600) & 0xff) == 3);
}

TEST_CASE("a bzImage starts in 64-bit mode with its zero page, after a reset too") {
    // inc byte [0x600]; cmp byte [0x600],2; je E; out 0x64,al; jmp self;
    // E: cmp dword [rsi+0x202],"HdrS"; mov al,0x10; je F; mov al,0x11; F: out 0xf4,al
    const vmm::Bytes code =
        bytes_of({0xfe, 0x04, 0x25, 0x00, 0x06, 0x00, 0x00, 0x80, 0x3c, 0x25, 0x00, 0x06, 0x00,
                  0x00, 0x02, 0x74, 0x04, 0xe6, 0x64, 0xeb, 0xfe, 0x81, 0xbe, 0x02, 0x02, 0x00,
                  0x00, 0x48, 0x64, 0x72, 0x53, 0xb0, 0x10, 0x74, 0x02, 0xb0, 0x11, 0xe6, 0xf4});
    vmm::Bytes file = tests::linux_image();
    tests::patch(file, tests::LinuxAt::kPreferredAddress, std::uint64_t{0x200000});
    std::copy(code.begin(), code.end(), file.begin() + tests::LinuxAt::kKernel + 0x200);
    Guest guest{loaded(file)};
    guest.start();
    const vmm::GuestEnd end = guest.lifecycle->wait_end();
    INFO(end.text);
    CHECK(end.reason == Reason::exit_port);
    CHECK(end.value == 0x10);
    CHECK(guest.lifecycle->resets() == 1);
}

TEST_CASE("a jump to the reset vector resets the guest") {
    // inc byte [0x600]; cmp byte [0x600],2; je E; jmp 0xf000:0xfff0; E: mov al,0x10; out 0xf4,al
    Guest guest{loaded(bytes_of({0xfe, 0x06, 0x00, 0x06, 0x80, 0x3e, 0x00, 0x06, 0x02, 0x74,
                                 0x05, 0xea, 0xf0, 0xff, 0x00, 0xf0, 0xb0, 0x10, 0xe6, 0xf4}))};
    guest.start();
    const vmm::GuestEnd end = guest.lifecycle->wait_end();
    INFO(end.text);
    CHECK(end.reason == Reason::exit_port);
    CHECK(guest.lifecycle->resets() == 1);
}

TEST_CASE("a triple fault in protected mode resets the guest") {
    // inc byte [0x600]; cmp byte [0x600],3; je E; ud2 (no gate for it is present); E: mov al,0x10; out
    // 0xf4,al
    Guest guest{{0xfe, 0x05, 0x00, 0x06, 0x00, 0x00, 0x80, 0x3d, 0x00, 0x06, 0x00,
                 0x00, 0x03, 0x74, 0x02, 0x0f, 0x0b, 0xb0, 0x10, 0xe6, 0xf4},
                vmm::EntryMode::protected32};
    guest.start();
    const vmm::GuestEnd end = guest.lifecycle->wait_end();
    INFO(end.text);
    CHECK(end.reason == Reason::exit_port);
    CHECK(guest.lifecycle->resets() == 2);
}

TEST_CASE("all vCPUs of a machine carry out a task at once") {
    constexpr std::uint32_t kVcpus = 4;
    const vmm::Kvm kvm = must(vmm::Kvm::open());
    vmm::MachineConfig config;
    config.name = "team";
    config.ram_bytes = kRam;
    config.vcpus = kVcpus;
    const auto machine = must(vmm::Machine::create(kvm, config));
    const auto team = must(vmm::VcpuTeam::create(*machine));
    std::mutex mutex;
    std::condition_variable changed;
    std::uint32_t there = 0;
    CHECK(team->for_each([&](vmm::Vcpu&) -> vmm::Result<void> {
        std::unique_lock lock{mutex};
        ++there;
        changed.notify_all();
        if (!changed.wait_for(lock, kLimit, [&] { return there == kVcpus; })) {
            return vmm::fail(vmm::Code::timeout, "the others wait for this one");
        }
        return {};
    }));
}

TEST_CASE("this host offers what a guest made on it needs") {
    Guest guest{kCounter};
    guest.start();
    const auto needs = guest.lifecycle->cpu_needs();
    REQUIRE(needs);
    auto offer = vmm::probe_host(guest.kvm);
    REQUIRE(offer);
    for (const std::string& line : vmm::missing_on(*needs, *offer)) {
        FAIL_CHECK(line);
    }
    // sse2, which every 64-bit host has
    vmm::apply(vmm::parse_cpuid_mask("1:edx=0x4000000").value(), offer->cpuid);
    CHECK(vmm::missing_on(*needs, *offer) ==
          std::vector<std::string>{"leaf 0x1 edx bit 26 (sse2) is not offered by the destination"});
}

// Without KVM all of it is skipped: exit status 77.
int main(int argc, char** argv) {
    const auto kvm = vmm::Kvm::open();
    if (!kvm) {
        std::printf("skipped: %s\n", kvm.error().text().c_str());
        return 77;
    }
    std::printf("%s\n", kvm->capabilities().report().c_str());
    return Catch::Session().run(argc, argv);
}
