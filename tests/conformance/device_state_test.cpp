// What every device owes to migration, asked of every device.
#include <catch2/catch.hpp>
#include <random>
#include <set>

#include "devices/board.hpp"
#include "tests/conformance/rigs.hpp"
#include "tests/golden/golden.hpp"
#include "tests/unit/devices/device_state.hpp"
#include "vmm/state/describe.hpp"

namespace {

using tests::restore;
using tests::save;
using vmm::Bytes;
using vmm::Result;

// Bytes as the body of a section of S, whatever they mean.
template <typename S>
struct RawBody {
    static constexpr vmm::StateId id = S::id;
    std::vector<std::uint8_t> body;

    template <typename Self, typename V>
    static void visit(Self& self, V& v) {
        for (auto& byte : self.body) {
            v.field("byte", byte);
        }
    }
};

template <typename S>
Bytes snapshot_of(const Bytes& body) {
    RawBody<S> raw;
    for (const std::byte value : body) {
        raw.body.push_back(std::to_integer<std::uint8_t>(value));
    }
    vmm::SnapshotWriter writer;
    writer.put(0, raw);
    return writer.finish();
}

template <typename Rig>
typename Rig::State state_of(Rig& rig) {
    auto reader = vmm::SnapshotReader::parse(save(rig.device()));
    REQUIRE(reader);
    auto state = reader->template take<typename Rig::State>(0);
    REQUIRE(state);
    return std::move(*state);
}

// Whatever the state, a guest may read and write every register, with any width.
void poke(vmm::BusDevice& bus, std::uint64_t registers, std::mt19937& random) {
    for (int i = 0; i < 32; ++i) {
        const std::uint64_t offset = random() % registers;
        std::array<std::byte, 8> data{};
        data[0] = static_cast<std::byte>(random() & 0xff);
        const auto some = std::span{data}.first(std::size_t{1} << random() % 4);
        if (random() % 2 == 0) {
            bus.read(offset, some);
        } else {
            bus.write(offset, some);
        }
    }
}

Bytes mutated(Bytes body, std::mt19937& random) {
    const std::size_t changes = 1 + random() % 4;
    for (std::size_t i = 0; i < changes && !body.empty(); ++i) {
        body[random() % body.size()] = static_cast<std::byte>(random() & 0xff);
    }
    if (random() % 16 == 0) {
        body.resize(random() % (body.size() + 8));
    }
    return body;
}

template <typename... Rigs>
std::vector<std::string> names_of_rigs() {
    std::vector<std::string> names{std::string{Rigs::State::id.name}...};
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace

TEST_CASE("every device of the board has a rig here", "[conformance]") {
    std::set<std::string> names;
    for (const vmm::DeviceIdentity& device : devices::fixed_devices()) {
        names.emplace(device.state.name);
    }
    using namespace devices::virtio;
    for (const auto& what : {Config{{}, 0, DiskConfig{}}, Config{{}, 0, NetConfig{}},
                             Config{{}, 0, ConsoleConfig{}}, Config{{}, 0, RngConfig{}}}) {
        names.emplace(state_id_of(what).name);
    }
    static_assert(std::variant_size_v<decltype(Config::what)> == 4);
    CHECK(std::vector(names.begin(), names.end()) == names_of_rigs<ALL_RIGS>());
}

TEMPLATE_TEST_CASE("a device restores what it saved", "[conformance]", ALL_RIGS) {
    TestType rig;
    const Bytes power_on = save(rig.device());
    rig.populate();
    const Bytes first = save(rig.device());
    CHECK(save(rig.device()) == first);
    CHECK((first == power_on) == TestType::kStateless);
    rig.populate();
    CHECK((save(rig.device()) == first) == TestType::kStateless);

    REQUIRE(restore(rig.device(), first));
    CHECK(save(rig.device()) == first);

    TestType other;
    REQUIRE(restore(other.device(), first));
    CHECK(vmm::first_difference(state_of(other), state_of(rig)) == "");
    CHECK(save(other.device()) == first);
    other.device().resume();
    REQUIRE(other.device().pause(tests::kPauseLimit));
    CHECK(save(other.device()) == first);
}

TEMPLATE_TEST_CASE("populating a device touches every field of its state", "[conformance]", ALL_RIGS) {
    TestType rig;
    const auto before = vmm::dump(state_of(rig));
    rig.populate();
    const auto after = vmm::dump(state_of(rig));
    for (const vmm::FieldValue& field : before) {
        if (field.path.starts_with("ram[") || !TestType::changes(field.path)) {
            continue;
        }
        INFO(field.path);
        CHECK(std::find(after.begin(), after.end(), field) == after.end());
    }
}

TEMPLATE_TEST_CASE("a reset device is as new, but for what a reset keeps", "[conformance]", ALL_RIGS) {
    TestType fresh;
    TestType rig;
    rig.populate();
    rig.device().reset();
    CHECK(vmm::first_difference(TestType::kept(state_of(rig)), TestType::kept(state_of(fresh))) == "");
}

TEMPLATE_TEST_CASE("a truncated, extended or missing section changes nothing", "[conformance]", ALL_RIGS) {
    using State = typename TestType::State;
    TestType rig;
    rig.populate();
    const Bytes body = vmm::encode(state_of(rig));
    TestType other;
    const Bytes before = save(other.device());
    for (std::size_t size = 0; size < body.size(); ++size) {
        const Bytes prefix{body.begin(), body.begin() + static_cast<std::ptrdiff_t>(size)};
        INFO(size);
        REQUIRE_FALSE(restore(other.device(), snapshot_of<State>(prefix)));
    }
    Bytes longer = body;
    longer.push_back(std::byte{0});
    CHECK_FALSE(restore(other.device(), snapshot_of<State>(longer)));
    CHECK_FALSE(restore(other.device(), vmm::SnapshotWriter{}.finish()));
    CHECK(save(other.device()) == before);
    CHECK(restore(other.device(), snapshot_of<State>(body)));
}

TEMPLATE_TEST_CASE("a damaged state is refused or taken as it is", "[conformance]", ALL_RIGS) {
    using State = typename TestType::State;
    TestType source;
    source.populate();
    const Bytes good = vmm::encode(state_of(source));
    std::mt19937 random{20240229};
    TestType rig;
    for (int i = 0; i < 4000; ++i) {
        const Bytes snapshot = snapshot_of<State>(mutated(good, random));
        const Bytes before = save(rig.device());
        if (restore(rig.device(), snapshot)) {
            REQUIRE(save(rig.device()) == snapshot);
            rig.device().resume();
            poke(rig.bus(), TestType::kRegisters, random);
            REQUIRE(rig.device().pause(tests::kPauseLimit));
        } else {
            REQUIRE(save(rig.device()) == before);
        }
    }
}

TEMPLATE_TEST_CASE("schema and recorded streams of a device", "[conformance]", ALL_RIGS) {
    using State = typename TestType::State;
    tests::check_golden(fmt::format("schema/{}-v{}.txt", State::id.name, State::id.current),
                        vmm::describe<State>());
    TestType rig;
    rig.populate();
    const auto stream = [](unsigned version) {
        return fmt::format("stream/{}-v{}.bin", State::id.name, version);
    };
    tests::check_golden(stream(State::id.current), save(rig.device()));
    for (unsigned version = State::id.oldest; version <= State::id.current; ++version) {
        TestType other;
        const Bytes recorded = tests::golden_bytes(stream(version));
        REQUIRE(restore(other.device(), recorded));
        if (version == State::id.current) {
            CHECK(save(other.device()) == recorded);
        }
    }
}
